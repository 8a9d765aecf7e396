# shellcheck shell=bash
# Finds the services and programs that the tests need, or installs and starts them. Sourced by `scripts/test` and
# `scripts/chaos`; never stops or changes a service that it did not start.

containers=()
own_policy=
missing=()

say() { printf 'scripts/%s: %s\n' "$(basename "$0")" "$*" >&2; }

has() { command -v "$1" >/dev/null 2>&1; }

is_root() { [ "$(id -u)" = 0 ]; }

can_install() { is_root && has apt-get; }

has_docker() { has docker && timeout 20 docker info >/dev/null 2>&1; }

clean_up() {
  [ -z "$own_policy" ] || rm -f "$own_policy"
  if [ "${#containers[@]}" -gt 0 ]; then docker rm --force --volumes "${containers[@]}" >/dev/null 2>&1 || true; fi
}

# Sends a protocol's greeting and checks the first byte of the answer: an open port alone is not a service.
greets() { # port, words, pattern of the answer in hexadecimal
  local answer
  # shellcheck disable=SC2016 # The inner shell reads its own arguments.
  answer=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" && printf "$2" >&3 && head -c 1 <&3' _ "$1" "$2" \
    2>/dev/null | od -An -tx1 | tr -d ' \n') || return 1
  [[ $answer =~ ^($3)$ ]]
}

# An SSLRequest, which PostgreSQL answers with S or N.
postgres_answers() { greets 5432 '\x00\x00\x00\x08\x04\xd2\x16\x2f' '53|4e'; }

# PING: `+PONG`, or an error if a password is required.
redis_answers() { greets 6379 'PING\r\n' '2b|2d'; }
redis_lets_in() { greets 6379 'PING\r\n' '2b'; }

# The protocol header, answered with a method frame.
rabbitmq_answers() { greets 5672 'AMQP\x00\x00\x09\x01' '01'; }

wait_until() { # seconds, what, command…
  local left=$1 what=$2
  shift 2
  until "$@"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { say "$what does not answer"; return 1; }
    sleep 1
  done
}

package_lists_updated=
install() { # packages…
  say "installing $*"
  if [ -z "$package_lists_updated" ]; then
    apt-get update -qq >&2
    package_lists_updated=yes
  fi
  # Packages start their services at once, perhaps on a used port; here each is started explicitly.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    own_policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$own_policy"
    chmod +x "$own_policy"
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
  if [ -n "$own_policy" ]; then
    rm -f "$own_policy"
    own_policy=
  fi
}

container() { # published port, image's name, arguments of docker run with the image among them…
  local port=$1 id
  shift
  say "starting a container of $1"
  id=$(docker run --detach --publish "127.0.0.1:$port:$port" "${@:2}")
  containers+=("$id")
}

need_compiler() {
  if has cc; then return; fi
  if can_install; then
    install gcc libc6-dev
  else
    missing+=("a C compiler: cc (Debian: apt-get install gcc libc6-dev)")
  fi
}

# libjpeg's SIMD code, which the imaging tests also use, needs this assembler.
need_assembler() {
  if has nasm; then return; fi
  if can_install; then
    install nasm
  else
    missing+=("the assembler nasm (Debian: apt-get install nasm)")
  fi
}

# Prints the newest cluster on the default port: version and name.
cluster() {
  has pg_lsclusters || return 0
  pg_lsclusters --no-header | awk '$3 == 5432 { found = $1 " " $2 } END { print found }'
}

start_postgres() {
  if can_install; then
    [ -n "$(cluster)" ] || install postgresql postgresql-client
    local version name
    read -r version name <<<"$(cluster)"
    [ -n "$version" ] || { say "PostgreSQL is installed, but no cluster uses port 5432"; return 1; }
    say "starting PostgreSQL $version"
    pg_ctlcluster --skip-systemctl-redirect "$version" "$name" start
  elif has_docker; then
    container 5432 postgres:15 --env POSTGRES_PASSWORD=postgres postgres:15 -c max_connections=200
    # The container's first server, which only initializes the files, does not listen on TCP.
    wait_until 120 PostgreSQL docker exec "${containers[-1]}" pg_isready --quiet --host 127.0.0.1
  else
    missing+=("PostgreSQL at 127.0.0.1:5432, or PM_TEST_POSTGRES_URL")
    return
  fi
  wait_until 60 PostgreSQL postgres_answers
}

start_redis() {
  if has redis-server || can_install; then
    has redis-server || install redis-server
    say "starting Redis"
    local as=()
    if is_root && id redis >/dev/null 2>&1; then as=(runuser -u redis --); fi
    ${as[@]+"${as[@]}"} redis-server --port 6379 --bind 127.0.0.1 --save '' --appendonly no --dir /tmp \
      --daemonize yes >/dev/null
  elif has_docker; then
    container 6379 redis:7 redis:7
  else
    missing+=("Redis at 127.0.0.1:6379, or PM_TEST_REDIS_URL")
    return
  fi
  wait_until 60 Redis redis_answers
}

start_rabbitmq() {
  if can_install; then
    has rabbitmq-server || install rabbitmq-server
    say "starting RabbitMQ"
    # The distribution port also stays on loopback; the node's name does not depend on the machine's DNS name.
    RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 ERL_EPMD_ADDRESS=127.0.0.1 \
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" rabbitmq-server -detached >&2
  elif has_docker; then
    container 5672 rabbitmq:3 rabbitmq:3
  else
    missing+=("RabbitMQ at 127.0.0.1:5672, or PM_TEST_RABBITMQ_URL")
    return
  fi
  wait_until 180 RabbitMQ rabbitmq_answers
}

# Debian installs each version of PostgreSQL in its own directory.
has_postgres_program() { has "$1" || compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null; }

# Experiments start and kill their own engines, on other ports, so they need local programs, not containers.
need_engine_programs() {
  if ! has_postgres_program initdb || ! has_postgres_program postgres; then
    if can_install; then
      install postgresql postgresql-client
    else
      missing+=("the programs initdb and postgres (Debian: apt-get install postgresql)")
    fi
  fi
  if ! has redis-server; then
    if can_install; then
      install redis-server
    else
      missing+=("the program redis-server (Debian: apt-get install redis-server)")
    fi
  fi
  if ! compgen -G "/usr/lib/*/faketime/libfaketimeMT.so.1" >/dev/null; then
    if can_install; then
      install libfaketime
    else
      missing+=("the library libfaketime (Debian: apt-get install libfaketime)")
    fi
  fi
  if ! [ -x /usr/sbin/pgbouncer ]; then
    if can_install; then
      install pgbouncer
    else
      missing+=("the program pgbouncer (Debian: apt-get install pgbouncer)")
    fi
  fi
  if ! has rabbitmq-server || ! has rabbitmqctl || ! has epmd; then
    if can_install; then
      install rabbitmq-server
    else
      missing+=("the programs rabbitmq-server, rabbitmqctl and epmd (Debian: apt-get install rabbitmq-server)")
    fi
  fi
}

# Checks whether the tests can connect and create databases.
may_create_databases() {
  local answer
  answer=$(PGCONNECT_TIMEOUT=5 psql "$1" --no-psqlrc --no-password --tuples-only --no-align --quiet --command \
    "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user" 2>/dev/null) && [ "$answer" = t ]
}

# Creates the role `pm_test` with a new password, as the server's superuser; prints its URL.
create_role() {
  local password
  password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  (cd / && runuser -u postgres -- psql --no-psqlrc --quiet --port 5432 --set ON_ERROR_STOP=1 postgres) \
    >&2 <<SQL || return 1
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pm_test') AS absent \gset
\if :absent
  CREATE ROLE pm_test;
\endif
ALTER ROLE pm_test LOGIN CREATEDB PASSWORD '$password';
SQL
  printf 'postgres://pm_test:%s@127.0.0.1:5432/postgres' "$password"
}

check_redis_password() {
  if [ -z "${PM_TEST_REDIS_URL-}" ] && ! redis_lets_in; then
    missing+=("the password of Redis at 127.0.0.1:6379: give its address in PM_TEST_REDIS_URL")
  fi
}

find_postgres_role() {
  has psql || ! can_install || install postgresql-client
  if ! has psql; then
    say "psql is missing, so access to PostgreSQL is not checked"
    export PM_TEST_POSTGRES_URL=${PM_TEST_POSTGRES_URL:-postgres://postgres:postgres@127.0.0.1:5432/postgres}
    return
  fi
  if [ -n "${PM_TEST_POSTGRES_URL-}" ]; then
    may_create_databases "$PM_TEST_POSTGRES_URL" ||
      missing+=("a role that may create databases at PM_TEST_POSTGRES_URL")
    return
  fi
  local url
  for url in postgres://postgres@127.0.0.1:5432/postgres postgres://postgres:postgres@127.0.0.1:5432/postgres; do
    if may_create_databases "$url"; then
      export PM_TEST_POSTGRES_URL=$url
      return
    fi
  done
  if is_root && has runuser && id postgres >/dev/null 2>&1 && url=$(create_role) && may_create_databases "$url"; then
    export PM_TEST_POSTGRES_URL=$url
    return
  fi
  missing+=("a role that may create databases at 127.0.0.1:5432: give its address in PM_TEST_POSTGRES_URL")
}

# Unit tests run without a network where possible; they give the downloader only addresses of this machine, so that they
# are safe elsewhere.
need_loopback_only() {
  has ip || ! can_install || install iproute2
  scripts/on-loopback-only --probe
}

fail_if_missing() {
  [ "${#missing[@]}" -gt 0 ] || return 0
  say "missing (as root on Debian this script installs programs and services, with Docker only services):"
  printf '  - %s\n' "${missing[@]}" >&2
  exit 1
}
