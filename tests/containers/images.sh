#!/usr/bin/env bash
# Makes the images of the tests with `ENGINE import`, without a registry: images.sh docker|podman.
#
#   swerex-test/debian    what is installed here: bash, coreutils, python3, glibc
#   swerex-test/musl      as Alpine is: everything static, busybox, and bash
#   swerex-test/busybox   no bash
#   swerex-test/empty     nothing at all
set -eu
cd "$(dirname "$0")/.."
engine=$1
prefix=swerex-test/
[ "$engine" = podman ] && prefix=localhost/swerex-test/
root=build/images
mkdir -p "$root"
if command -v flock >/dev/null; then # one at a time: who comes second has them
  exec 9>"${TMPDIR:-/tmp}/swerex-test-images-$engine.lock"
  flock 9
fi

have() { "$engine" image inspect "$1" >/dev/null 2>&1; }

skeleton() { # FOLDER
  rm -rf "$1"
  mkdir -p "$1"/{tmp,root,proc,sys,dev,etc}
  chmod 1777 "$1/tmp"
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$1/etc/passwd"
}

applets() { # FOLDER
  local applet
  mkdir -p "$1/bin" "$1/usr/bin"
  cp "$(type -P busybox)" "$1/bin/busybox"
  for applet in $(busybox --list); do
    [ "$applet" = busybox ] && continue
    ln -sf busybox "$1/bin/$applet"
    ln -sf /bin/busybox "$1/usr/bin/$applet"
  done
}

# The files of some of this machine's packages. /bin and its like are links into /usr.
debian() { # FOLDER
  local packages="bash coreutils dash grep sed procps less libc6 libc-bin libtinfo6 libselinux1
    libacl1 libattr1 libpcre2-8-0 libproc2-0 libgmp10 libcap2 libsystemd0 libncursesw6 python3-minimal
    python3.11-minimal libpython3.11-minimal libpython3.11-stdlib zlib1g libexpat1 libffi8 libbz2-1.0
    liblzma5 libuuid1 libreadline8 libcrypt1 libgcc-s1 libgcrypt20 libgpg-error0 liblz4-1 libzstd1"
  {
    printf '%s\n' bin lib lib64 sbin
    dpkg -L $packages 2>/dev/null | sed -E 's#^/(bin|lib|lib64|sbin)/#/usr/\1/#' |
      grep -vE '^/(bin|lib|lib64|sbin|\.)?$|^/usr/share/(doc|man|locale)/' | sed 's|^/||'
  } | sort -u | while read -r file; do [ -e "/$file" ] && printf '%s\n' "$file"; done |
    tar -C / --no-recursion -cf - -T - | tar -C "$1" -xf -
}

import() { # NAME FOLDER
  tar -C "$2" -c . | "$engine" import -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' - "$1" >build/import.log 2>&1 || { cat build/import.log; exit 1; }
}

for name in debian musl busybox empty; do
  have "$prefix${name}" 2>/dev/null && continue
  skeleton "$root/$name"
  case $name in
  debian) debian "$root/$name" ;;
  musl)
    applets "$root/$name"
    cp "$(type -P bash-static)" "$root/$name/bin/bash"
    ;;
  busybox) applets "$root/$name" ;;
  esac
  import "$prefix$name" "$root/$name"
  rm -rf "${root:?}/$name"
done
