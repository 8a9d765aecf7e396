//! Settings of downloads and image processing.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key::new("workers", &["PM_WORKERS"], "auto")
        .doc(
            "Images processed at a time per process; `auto`: number of cores; 0: none. `pm worker` has the flag \
            `--concurrency` for it.",
        )
        .allowed("a number from 0 to 1024, or auto")
        .flag("--workers", Some("serve")),
    Key::new("worker_listen", &["PM_WORKER_LISTEN"], "")
        .doc("Address of /healthz, /readyz and /metrics of `pm worker`; default: off.")
        .allowed("an address and a port, such as 127.0.0.1:8081")
        .flag("--listen", Some("worker")),
    Key::new("gc_every", &["PM_GC_EVERY"], "24h")
        .doc("Interval at which `pm serve` and `pm worker` delete unreferenced blobs, like `pm gc`; `0`: never.")
        .allowed("0, or a time from 1s to 365d, such as 24h")
        .measure(),
    Key::new("fetch_allow", &["PM_FETCH_ALLOW"], "[]")
        .doc("Private networks that pm may download from, such as [\"10.1.0.0/16\"].")
        .allowed("networks and addresses, such as 10.1.0.0/16, separated by commas"),
    Key::new("fetch_max_bytes", &["PM_FETCH_MAX_BYTES"], "32 MiB")
        .doc("Maximum size of an image file.")
        .allowed("a size from 1 KiB to 1 GiB, such as 32 MiB")
        .measure(),
    Key::new("fetch_timeout", &["PM_FETCH_TIMEOUT"], "30s")
        .doc("Time limit of one download.")
        .allowed("a time from 100ms to 1h, such as 30s")
        .measure(),
    Key::new("fetch_per_host", &["PM_FETCH_PER_HOST"], "4")
        .doc("Simultaneous downloads per host and process; a slow host cannot block all workers.")
        .allowed("a number from 1 to 1024"),
    Key::new("max_waiting_jobs_per_user", &["PM_MAX_WAITING_JOBS_PER_USER"], "50000")
        .doc("Maximum waiting images per user; more are refused with 429.")
        .allowed("a number from 1 to 1000000000"),
    Key::new("image_max_pixels", &["PM_IMAGE_MAX_PIXELS"], "50000000")
        .doc("Maximum width times height of an image.")
        .allowed("a number of pixels from 1 to 1000000000"),
    Key::new("image_memory", &["PM_IMAGE_MEMORY"], "512 MiB")
        .doc("Memory shared by all decoders; up to four downloads per decoder come on top.")
        .allowed("a size of at least 16 MiB, such as 512 MiB")
        .measure(),
    Key::new("image_timeout", &["PM_IMAGE_TIMEOUT"], "20s")
        .doc("CPU time limit per image; the wall-clock limit is three times as long.")
        .allowed("a time from 1s to 10m, such as 20s")
        .measure(),
    Key::new("isolation", &["PM_ISOLATION"], "best-effort")
        .doc(
            "Sandbox of decoders. Each image is decoded in a separate process without files and network. \
            `best-effort`: use the available layers and log missing ones. `require`: decode only with all layers. \
            `off`: decode in pm's own process.",
        )
        .allowed("require, best-effort or off"),
    Key::new("image_effort", &["PM_IMAGE_EFFORT"], "balanced")
        .doc("Encoding time against file size: `fast`, `balanced`, `small`; a preset can override it.")
        .allowed("fast, balanced or small"),
];
