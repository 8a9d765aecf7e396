"""The scenario of scripts/clients with the package that openapi-generator's `python` generates."""

import sys
import time

import pm_client
from pm_client import ApiException, NewProduct, NewProducts, NewProductsObject, ProductPatch

url, path = sys.argv[1:]
client = pm_client.ApiClient(pm_client.Configuration(host=url))
products, images = pm_client.ProductsApi(client), pm_client.ImagesApi(client)


def check(step, holds):
    print(f"openapi-generator-python: {step}: {'ok' if holds else 'FAILED'}", flush=True)
    if not holds:
        sys.exit(1)


def product_of(name, price):
    return NewProduct(user_id="openapi-generator-python", product_name=name, product_price=price)


created = products.create_product_with_http_info(product_of("Blue mug", 12.5))
check("create a product", created.status_code == 201 and created.data.product_price == 12.5)
number, etag = created.data.id, created.headers["etag"]

batch = products.create_products(NewProducts(NewProductsObject(products=[product_of("Red mug", 1), product_of("Green mug", 2.25)])))
check("create a batch", all(item.status == 201 for item in batch.items))

# The generator knows only the first kind of body of an operation, which is JSON here. Its client sends files by hand.
request = client.param_serialize(
    "POST",
    "/products/{id}/images",
    path_params={"id": number},
    files={"file": [path]},
    header_params={"Accept": "application/json", "Content-Type": "multipart/form-data"},
)
response = client.call_api(*request)
response.read()
added = client.response_deserialize(response, {"202": "AddedImages"}).data
check("upload an image", len(added.images) == 1)

for _ in range(300):
    product = products.get_product(number)
    if product.status != "processing":
        break
    time.sleep(0.1)
check("poll until ready", product.status == "ready" and len(product.images[0].renditions) > 0)

# The generated code would accept only the errors' media type, JSON, and be refused (406).
accept = {"Accept": "image/*"}
preset = images.get_preset_with_http_info(number, added.images[0].id, "small", _headers=accept)
check("get an image by preset", preset.status_code == 200 and len(preset.data) > 0)

current = products.get_product_with_http_info(number).headers["etag"]
changed = products.update_product(number, ProductPatch(product_price=9.99), if_match=current)
check("change with the current ETag", changed.product_price == 9.99)

try:
    products.update_product(number, ProductPatch(product_price=8), if_match=etag)
    status = 200
except ApiException as refusal:
    status = refusal.status
check("change with a stale ETag is 412", status == 412)
