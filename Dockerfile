# The image of a release: one binary with libjpeg built in (the feature `turbo`), on a Debian of its own, not as root.
#
#   docker build --tag pm --build-arg PM_COMMIT="$(git rev-parse HEAD)" .
#   docker run --publish 127.0.0.1:8080:8080 --volume pm:/data --env PM_AUTH=off pm
#
# In a container `pm` must listen on all addresses, and without authentication it does so only where the operator says
# `PM_AUTH=off`; the image does not say it for you.

FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends nasm \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /pm
COPY . .
# What `GET /version` names as the commit; without it, none.
ARG PM_COMMIT=
RUN cargo build --release --locked --features turbo --bin pm \
 && strip target/release/pm

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin pm \
 && install --directory --owner pm --group pm /data
COPY --from=build /pm/target/release/pm /usr/local/bin/pm
COPY LICENSE LICENSE-APACHE LICENSE-MIT /usr/share/doc/pm/
ENV PM_DATA_DIR=/data PM_LISTEN=0.0.0.0:8080
WORKDIR /data
USER pm
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["pm"]
CMD ["serve"]
