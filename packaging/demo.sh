#!/bin/sh
# Runs a container in a virtual machine of its own and shows that it has a kernel of its own.
#
#   packaging/demo.sh PREFIX IMAGE
set -eu

prefix=$1 image=$2
show='
echo "  kernel     $(uname -srv)"
echo "  processor $(grep -m 1 "model name" /proc/cpuinfo | cut -d: -f2)"
echo "  processors $(grep -c ^processor /proc/cpuinfo)"
echo "  memory     $(grep MemTotal /proc/meminfo | tr -s " " | cut -d" " -f2,3)"
echo "  user       $(id)"
'
sudo=
if [ "$(id -u)" != 0 ]; then
	sudo=sudo
fi
echo "on the host:"
sh -c "$show"
echo "in the container:"
exec $sudo "$prefix/bin/cofferdam" run --rm --net none "$image" sh -c "$show"
