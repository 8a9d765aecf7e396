"""The scenario of scripts/clients with the package that openapi-python-client generates."""

import sys
import time

from pm_client import Client
from pm_client.api.images import get_preset
from pm_client.api.products import add_images, create_product, create_products, get_product, update_product
from pm_client.models import ImageFiles, NewProduct, NewProductsObject, ProductPatch
from pm_client.types import File

url, path = sys.argv[1:]
client = Client(base_url=url)


def check(step, holds):
    print(f"openapi-python-client: {step}: {'ok' if holds else 'FAILED'}", flush=True)
    if not holds:
        sys.exit(1)


def product_of(name, price):
    return NewProduct(user_id="openapi-python-client", product_name=name, product_price=price)


created = create_product.sync_detailed(client=client, body=product_of("Blue mug", 12.5))
check("create a product", created.status_code == 201 and created.parsed.product_price == 12.5)
number, etag = created.parsed.id, created.headers["etag"]

products = NewProductsObject(products=[product_of("Red mug", 1), product_of("Green mug", 2.25)])
batch = create_products.sync_detailed(client=client, body=products)
check("create a batch", batch.status_code == 200 and all(item.status == 201 for item in batch.parsed.items))

with open(path, "rb") as image:
    files = ImageFiles(file=[File(payload=image, file_name="image.png", mime_type="image/png")])
    added = add_images.sync_detailed(number, client=client, body=files)
check("upload an image", added.status_code == 202 and len(added.parsed.images) == 1)

for _ in range(300):
    product = get_product.sync(number, client=client)
    if product.status != "processing":
        break
    time.sleep(0.1)
check("poll until ready", product.status == "ready" and len(product.images[0].renditions) > 0)

preset = get_preset.sync_detailed(number, added.parsed.images[0].id, "small", client=client)
check("get an image by preset", preset.status_code == 200 and len(preset.content) > 0)

current = get_product.sync_detailed(number, client=client).headers["etag"]
changed = update_product.sync_detailed(number, client=client, body=ProductPatch(product_price=9.99), if_match=current)
check("change with the current ETag", changed.status_code == 200 and changed.parsed.product_price == 9.99)

stale = update_product.sync_detailed(number, client=client, body=ProductPatch(product_price=8.0), if_match=etag)
check("change with a stale ETag is 412", stale.status_code == 412 and bool(stale.parsed.code))
