//! Makes the default renditions of one picture: `cargo run --release --example imaging -- photo.jpg [folder]`.

use std::error::Error;
use std::path::Path;

use pm::imaging::{Limits, default_presets, probe, process};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(source) = arguments.next() else { return Err("usage: imaging PICTURE [FOLDER]".into()) };
    let folder = arguments.next().unwrap_or_else(|| ".".to_owned());
    let bytes = std::fs::read(&source)?;
    let limits = Limits::default();

    let probed = probe(&bytes, &limits)?;
    println!("{} {} × {}, costs {} KiB", probed.format.as_str(), probed.width, probed.height, probed.cost_bytes >> 10);

    let processed = process(&bytes, &default_presets(), &limits)?;
    for rendered in &processed.renditions {
        let path = Path::new(&folder).join(format!("{}.{}", rendered.preset, rendered.extension()));
        std::fs::write(&path, &rendered.bytes)?;
        println!("{} {} × {}, {} bytes", path.display(), rendered.width, rendered.height, rendered.bytes.len());
    }
    println!("thumbhash {}, dominant colour {}", processed.thumbhash, processed.dominant_color);
    for warning in &processed.warnings {
        println!("warning: {}", warning.as_str());
    }
    println!("{:?}", processed.steps);
    Ok(())
}
