#!/usr/bin/env bash
# Make sure that an engine answers: engine.sh docker|podman. As root it starts a Docker daemon; for
# Podman it writes a configuration that works inside of a virtual machine without systemd. Prints
# what to put into the environment.
set -u
cd "$(dirname "$0")/.." || exit 1
mkdir -p build

# One at a time: who comes second finds it running.
if command -v flock >/dev/null; then
  exec 9>"${TMPDIR:-/tmp}/swerex-test-engine.lock"
  flock 9
fi

case $1 in
docker)
  command -v docker >/dev/null || exit 1
  docker info >/dev/null 2>&1 && exit 0
  [ "$(id -u)" -eq 0 ] && command -v dockerd >/dev/null || exit 1
  setsid dockerd >build/dockerd.log 2>&1 </dev/null 9>&- &
  for try in $(seq 100); do
    docker info >/dev/null 2>&1 && exit 0
    sleep 0.2
  done
  exit 1
  ;;
podman)
  command -v podman >/dev/null && command -v runc >/dev/null || exit 1
  cat >build/containers.conf <<'EOF'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
EOF
  echo "CONTAINERS_CONF=$PWD/build/containers.conf"
  CONTAINERS_CONF=$PWD/build/containers.conf podman info >/dev/null 2>&1
  ;;
esac
