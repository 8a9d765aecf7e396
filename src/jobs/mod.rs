//! What jobs do, one handler a payload. A handler works on what it was handed and answers what became of it; it claims no
//! jobs, and all it tells the catalogue is that it is about to decode. Beside them, the forms that are made on demand.

mod budget;
mod failure;
mod process_image;
mod recipe;
mod resize;

pub use budget::Budget;
pub use failure::Failure;
pub use process_image::{Config, Handler, Report, Steps};
pub use resize::{Error as ResizeError, MAX_SIDE, Options as ResizeOptions, ResizeConfig, Resizer, UrlKeys};
