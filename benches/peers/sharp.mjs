// Makes the renditions of a directory of images with sharp and prints one line of JSON:
//   node sharp.mjs FOLDER --modules DIR [--works A|B] [--repeat R] [--out DIR] [--concurrency C] [--in-flight N] [--structure cascade|each]
//
// Works A: JPEG 2048, WebP 1024, WebP 512 and JPEG 160 by the longest edge, quality 80. Works B: one JPEG of 512 px.
// `cascade` decodes once and makes each rendition from the next larger one; `each` decodes the file for every rendition.
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { parseArgs } from 'node:util';

const { values: options, positionals: [folder] } = parseArgs({
  allowPositionals: true,
  options: {
    modules: { type: 'string' },
    works: { type: 'string', default: 'A' },
    repeat: { type: 'string', default: '1' },
    out: { type: 'string' },
    concurrency: { type: 'string', default: '1' },
    'in-flight': { type: 'string', default: '4' },
    structure: { type: 'string', default: 'cascade' },
  },
});
const inFlight = Number(options['in-flight']);
// Read once, when the thread pool starts: each image in flight needs its own thread.
process.env.UV_THREADPOOL_SIZE = String(Math.max(4, inFlight));
const sharp = createRequire(path.resolve(options.modules, 'package.json'))('sharp');
sharp.concurrency(Number(options.concurrency));
// No image repeats, so an operation cache would only use memory.
sharp.cache(false);

const images = readdirSync(folder).sort().map((name) => ({ name, bytes: readFileSync(path.join(folder, name)) }));
const within = { fit: 'inside', withoutEnlargement: true };
const white = { background: '#ffffff' };

const large = (image) => image.flatten(white).jpeg({ quality: 80 }).toBuffer();
const webp = (image) => image.webp({ quality: 80, effort: 4 }).toBuffer();
// Small images keep full chroma resolution, as in the other programs.
const thumb = (image) => image.flatten(white).jpeg({ quality: 80, chromaSubsampling: '4:4:4' }).toBuffer();

// `rotate` without an angle applies the EXIF orientation; the output is sRGB without metadata by default.
const fromFile = (bytes, edge) => sharp(bytes).rotate().resize(edge, edge, within);

async function pixels(image) {
  const { data, info: { width, height, channels } } = await image.raw().toBuffer({ resolveWithObject: true });
  return (edge) => {
    const again = sharp(data, { raw: { width, height, channels } });
    return edge ? again.resize(edge, edge, within) : again;
  };
}

async function cascade(bytes) {
  const of2048 = await pixels(fromFile(bytes, 2048));
  const largest = large(of2048());
  const of1024 = await pixels(of2048(1024));
  return Promise.all([largest, webp(of1024()), webp(of1024(512)), thumb(of1024(160))]);
}

const each = (bytes) =>
  Promise.all([
    large(fromFile(bytes, 2048)),
    webp(fromFile(bytes, 1024)),
    webp(fromFile(bytes, 512)),
    thumb(fromFile(bytes, 160)),
  ]);

const names = options.works === 'B' ? ['small.jpg'] : ['large.jpg', 'medium.webp', 'small.webp', 'thumb.jpg'];
const render = options.works === 'B' ? async (bytes) => [await large(fromFile(bytes, 512))] : { cascade, each }[options.structure];

const runs = images.length * Number(options.repeat);
const sums = {};
let next = 0;
async function worker() {
  while (next < runs) {
    const run = next++;
    const { name, bytes } = images[run % images.length];
    const files = await render(bytes);
    if (run >= images.length) continue;
    files.forEach((file, index) => {
      const preset = names[index].split('.')[0];
      sums[preset] = (sums[preset] ?? 0) + file.length;
      if (options.out) writeFileSync(path.join(options.out, `${name}.${names[index]}`), file);
    });
  }
}
const began = process.hrtime.bigint();
const cpuBefore = process.cpuUsage();
await Promise.all(Array.from({ length: inFlight }, worker));
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
const { user, system } = process.cpuUsage(cpuBefore);

const round = (value) => Math.round(value * 100) / 100;
console.log(JSON.stringify({
  peer: 'sharp',
  version: `${sharp.versions.sharp} (libvips ${sharp.versions.vips})`,
  works: options.works,
  settings: `${options.works === 'B' ? '' : `${options.structure}, `}concurrency ${options.concurrency}, ${inFlight} in flight`,
  images: runs,
  images_per_s: round(runs / seconds),
  cpu_ms_per_image: round((user + system) / 1e3 / runs),
  peak_rss_mb: round(process.resourceUsage().maxRSS / 1024),
  bytes_by_rendition: sums,
}));
