# What the tests take for images that no registry gives them: Debian's packages, with the same settings and paths.

# The first, since it is needed alone too: builders without BuildKit make all stages before the one that they are asked for.
FROM debian:bookworm-slim AS postgres
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-15 && rm -rf /var/lib/apt/lists/* /var/cache/apt \
 && install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data && chmod 3777 /var/run/postgresql
COPY postgres /usr/local/bin/postgres-start
ENTRYPOINT ["postgres-start"]

FROM debian:bookworm-slim AS python
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3.11-minimal libpython3.11-stdlib python3.11-venv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt \
 && printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > /etc/pip.conf

FROM debian:bookworm-slim AS caddy
RUN apt-get update && apt-get install -y --no-install-recommends caddy && rm -rf /var/lib/apt/lists/* /var/cache/apt

FROM debian:bookworm-slim AS prometheus
RUN apt-get update && apt-get install -y --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/* /var/cache/apt \
 && install -d -o nobody -g nogroup /prometheus
USER nobody
ENTRYPOINT ["prometheus"]

FROM debian:bookworm-slim AS alertmanager
RUN apt-get update && apt-get install -y --no-install-recommends prometheus-alertmanager \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt && install -d -o nobody -g nogroup /alertmanager
USER nobody
ENTRYPOINT ["prometheus-alertmanager"]
