//! The setting of presets.

use super::Key;

/// The default presets, in TOML as in the environment.
const PRESETS: &str = r#"[large]
edge = 2048
fit = "contain"
formats = ["jpeg"]
quality = 80

[medium]
edge = 1024
fit = "contain"
formats = ["webp"]
quality = 80

[small]
edge = 512
fit = "contain"
formats = ["webp"]
quality = 80

[thumb]
edge = 160
fit = "contain"
formats = ["jpeg"]
quality = 80
"#;

pub(super) const KEYS: &[Key] = &[Key::new("presets", &["PM_PRESETS"], PRESETS)
    .doc(
        "Renditions of every image. A `presets` table in a file replaces all presets. `edge` is the length of \
            the longer side in pixels; `width` and `height` define a box instead. `fit` is `contain` or, with a box, \
            `cover` (crops) or `fill` (stretches). `focus` is the focal point of `cover`: fractions of width and \
            height such as `[0.5, 0.33]`, or a name such as `top`, `bottom-left` or `center`. `formats` are `jpeg`, \
            `webp`, `webp-lossless`, `png` and `avif`; `quality` is 1 to 100; `effort` is as in `image_effort`. \
            Images are never enlarged. In the environment: `PM_PRESETS='large = { edge = 2048 }'`.",
    )
    .allowed("a table of presets, each with edge, or width and height, and fit, focus, formats, quality, effort")];
