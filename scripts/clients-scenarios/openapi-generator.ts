// The scenario of scripts/clients with the client that openapi-generator's `typescript-fetch` generates.
import { readFileSync } from "node:fs";
import { AddedImagesFromJSON, Configuration, ImagesApi, ProductsApi, ResponseError } from "./index";

const [basePath, file] = process.argv.slice(2) as [string, string];
const configuration = new Configuration({ basePath });
const [products, images] = [new ProductsApi(configuration), new ImagesApi(configuration)];
const productOf = (name: string, price: number) =>
  ({ userId: "openapi-generator-typescript", productName: name, productPrice: price });

async function main() {
  const created = await products.createProductRaw({ newProduct: productOf("Blue mug", 12.5) });
  const etag = created.raw.headers.get("etag")!;
  let product = await created.value();
  const id = product.id;
  check("create a product", created.raw.status === 201 && product.productPrice === 12.5);

  const batch = await products.createProducts({
    newProducts: { products: [productOf("Red mug", 1), productOf("Green mug", 2.25)] },
  });
  check("create a batch", batch.items.every((item) => item.status === 201));

  // The generator knows only the first kind of body of an operation, which is JSON here.
  const form = new FormData();
  form.append("file", new Blob([readFileSync(file)]), "image.png");
  const uploaded = await fetch(`${basePath}/products/${id}/images`, { method: "POST", body: form });
  const added = AddedImagesFromJSON(await uploaded.json());
  check("upload an image", added.images.length === 1);

  for (let i = 0; i < 300 && (i === 0 || product.status === "processing"); i++) {
    await new Promise((done) => setTimeout(done, 100));
    product = await products.getProduct({ id });
  }
  check("poll until ready", product.status === "ready" && product.images[0]!.renditions.length > 0);

  const preset = await images.getPreset({ id, imageId: added.images[0]!.id, preset: "small" });
  check("get an image by preset", preset.size > 0);

  const current = (await products.getProductRaw({ id })).raw.headers.get("etag")!;
  const changed = await products.updateProduct({ id, ifMatch: current, productPatch: { productPrice: 9.99 } });
  check("change with the current ETag", changed.productPrice === 9.99);

  const refused = await products.updateProduct({ id, ifMatch: etag, productPatch: { productPrice: 8 } }).catch((error) => error);
  check("change with a stale ETag is 412", refused instanceof ResponseError && refused.response.status === 412);
}

function check(step: string, holds: boolean) {
  console.log(`openapi-generator-typescript: ${step}: ${holds ? "ok" : "FAILED"}`);
  if (!holds) process.exit(1);
}

main();
