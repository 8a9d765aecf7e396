// The scenario of scripts/clients with openapi-fetch and the types of openapi-typescript.
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { paths } from "./schema";

const [baseUrl, file] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl });

async function main() {
  const created = await client.POST("/products", {
    body: { user_id: "openapi-fetch", product_name: "Blue mug", product_price: 12.5 },
  });
  const id = created.data!.id;
  const etag = created.response.headers.get("etag")!;
  check("create a product", created.response.status === 201 && created.data!.product_price === 12.5);

  const batch = await client.POST("/products:batch", {
    body: {
      products: [
        { user_id: "openapi-fetch", product_name: "Red mug", product_price: 1 },
        { user_id: "openapi-fetch", product_name: "Green mug", product_price: 2.25 },
      ],
    },
  });
  check("create a batch", batch.response.status === 200 && batch.data!.items.every((item) => item.status === 201));

  const added = await client.POST("/products/{id}/images", {
    params: { path: { id } },
    // The description calls a file a string of bytes.
    body: { file: [new Blob([readFileSync(file)]) as unknown as string] },
    bodySerializer: (body) => {
      const form = new FormData();
      for (const part of (body as { file: string[] }).file) form.append("file", part as unknown as Blob, "image.png");
      return form;
    },
  });
  const image = added.data!.images[0]!;
  check("upload an image", added.response.status === 202);

  let product = created.data!;
  for (let i = 0; i < 300 && (i === 0 || product.status === "processing"); i++) {
    await new Promise((done) => setTimeout(done, 100));
    product = (await client.GET("/products/{id}", { params: { path: { id } } })).data!;
  }
  check("poll until ready", product.status === "ready" && product.images[0]!.renditions.length > 0);

  const preset = await client.GET("/products/{id}/images/{image_id}/{preset}", {
    params: { path: { id, image_id: image.id, preset: "small" } },
    parseAs: "arrayBuffer",
  });
  check("get an image by preset", preset.response.status === 200 && (preset.data as ArrayBuffer).byteLength > 0);

  const current = (await client.GET("/products/{id}", { params: { path: { id } } })).response.headers.get("etag")!;
  const patched = await client.PATCH("/products/{id}", {
    params: { path: { id }, header: { "If-Match": current } },
    body: { product_price: 9.99 },
  });
  check("change with the current ETag", patched.response.status === 200 && patched.data!.product_price === 9.99);

  const stale = await client.PATCH("/products/{id}", {
    params: { path: { id }, header: { "If-Match": etag } },
    body: { product_price: 8 },
  });
  check("change with a stale ETag is 412", stale.response.status === 412 && stale.error!.code.length > 0);
}

function check(step: string, holds: boolean) {
  console.log(`openapi-fetch: ${step}: ${holds ? "ok" : "FAILED"}`);
  if (!holds) process.exit(1);
}

main();
