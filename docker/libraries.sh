#!/bin/sh
# Lists the Debian packages whose shared libraries the programs and libraries given load.
set -eu

ldd "$@" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u | while read -r library; do
    file=$(readlink -f "$library")
    # Packages name the place from before /lib became a link to /usr/lib, or that after it.
    dpkg-query -S "$file" 2>/dev/null || dpkg-query -S "${file#/usr}" 2>/dev/null || :
done | sed 's/:.*//' | sort -u
