#!/bin/sh
# Installs the Debian packages of debian-packages.txt; does nothing when all are there.
set -eu
cd "$(dirname "$0")"
. ./lib.sh

. "${OS_RELEASE_FILE:-/etc/os-release}"
[ "${ID:-}" = debian ] && [ "${VERSION_ID:-}" = 12 ] ||
    fail "this is ${PRETTY_NAME:-an unknown system}, but the set-up is made for Debian 12:" \
        "use Docker instead, as docs/install.md says"

packages=$(sed 's/#.*//' debian-packages.txt)
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' $packages 2>/dev/null |
    sed -n 's/ installed$//p')
missing=
for package in $packages; do
    case " $(echo $installed) " in
        *" $package "*) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

echo "Installing Debian packages:$missing"
if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null; then
    sudo=sudo
else
    fail "installing Debian packages needs root, and there is no sudo here: have an administrator" \
        "run 'apt-get install$missing', then run make setup again"
fi
require_space /usr 3000 "the Debian packages"
$sudo apt-get -qq -o APT::Update::Error-Mode=any update ||
    fail "Debian's package lists could not be fetched: check the network connection and the" \
        "sources in /etc/apt, then run make setup again"
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 \
    install --no-install-recommends $missing >/dev/null ||
    fail "Debian packages could not be installed: see apt's messages above; when they speak of" \
        "the network, run make setup again once it is back"
