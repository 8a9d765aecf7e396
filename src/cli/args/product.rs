//! Arguments of `pm product`.

use clap::{Args, Subcommand};

use super::Paging;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Product {
    /// Add a product
    Add(ProductAdd),
    /// List products
    List(ProductList),
    /// Show one product
    Get {
        /// The product's id
        id: i64,
    },
    /// Change a product
    Update(ProductUpdate),
    /// Delete products with all their images
    Delete {
        /// The products' ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ProductAdd {
    /// The user who owns the product
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) user_id: String,
    /// Its name, up to 200 characters
    #[arg(long)]
    pub(in crate::cli) name: String,
    /// Its price, with up to 4 decimal places
    #[arg(long, allow_hyphen_values = true)]
    pub(in crate::cli) price: String,
    /// Its description, up to 10,000 characters
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) description: Option<String>,
    /// The URL of an image, or a local file; may be repeated
    #[arg(long = "image", value_name = "URL|FILE")]
    pub(in crate::cli) images: Vec<String>,
    /// Wait until its images are ready or failed
    #[arg(long)]
    pub(in crate::cli) wait: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(in crate::cli) struct ProductUpdate {
    /// The product's id
    pub(in crate::cli) id: i64,
    /// The new name, up to 200 characters
    #[arg(long, group = "change")]
    pub(in crate::cli) name: Option<String>,
    /// The new description, up to 10,000 characters; empty removes it
    #[arg(long, value_name = "TEXT", group = "change")]
    pub(in crate::cli) description: Option<String>,
    /// The new price, with up to 4 decimal places
    #[arg(long, allow_hyphen_values = true, group = "change")]
    pub(in crate::cli) price: Option<String>,
    /// Add an image: its URL, or a local file; may be repeated
    #[arg(long = "add-image", value_name = "URL|FILE", group = "change")]
    pub(in crate::cli) add_images: Vec<String>,
    /// Remove the image with this id; may be repeated
    #[arg(long = "remove-image", value_name = "N", group = "change")]
    pub(in crate::cli) remove_images: Vec<i64>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ProductList {
    /// Only this user's products
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) user_id: Option<String>,
    /// At least this price
    #[arg(long, value_name = "PRICE", allow_hyphen_values = true)]
    pub(in crate::cli) min_price: Option<String>,
    /// At most this price
    #[arg(long, value_name = "PRICE", allow_hyphen_values = true)]
    pub(in crate::cli) max_price: Option<String>,
    /// Only products whose name contains this text
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) name: Option<String>,
    /// Search names and descriptions for these words; the best match comes first
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub(in crate::cli) query: Option<String>,
    /// processing, ready or failed
    #[arg(long)]
    pub(in crate::cli) status: Option<String>,
    /// id, product_price, product_name or created_at; a leading `-` sorts in descending order
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub(in crate::cli) sort: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) paging: Paging,
}
