#!/bin/sh
# apt-get install --no-install-recommends PACKAGES…, with Debian's non-free part (CUDA) if CUDA=1.
#
# DEBIAN_MIRROR=http://host/debian takes the place of the mirrors in the base image; its security
# archive is then http://host/debian-security. A snapshot of the archive makes a build repeatable.
set -eu

components="main$([ "${CUDA:-0}" = 0 ] || echo " contrib non-free")"

source() { # MIRROR SUITES
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n' "$1" "$2" "$components"
    printf 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n'
}

if [ -n "${DEBIAN_MIRROR:-}" ]; then
    rm -f /etc/apt/sources.list
    {
        source "$DEBIAN_MIRROR" "bookworm bookworm-updates"
        source "$DEBIAN_MIRROR-security" bookworm-security
    } >/etc/apt/sources.list.d/debian.sources
else
    sed -i "s/^Components: main.*/Components: $components/" /etc/apt/sources.list.d/debian.sources
fi
apt-get -qq -o APT::Update::Error-Mode=any update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$@" >/dev/null
