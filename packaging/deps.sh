#!/bin/sh
# Installs the Debian packages that are missing; does nothing, quickly, when all are there.
#
#   packaging/deps.sh run          what running containers needs
#   packaging/deps.sh build        and what building needs
#   packaging/deps.sh test         and what the tests need (other runtimes and engines to compare with)
set -eu

# Each line: the package, and a command or file that shows it is there, however it was installed.
run='
qemu-system-x86     qemu-system-x86_64
'
build='
apparmor            apparmor_parser
bc                  bc
binutils            strip
bison               bison
debian-archive-keyring /usr/share/keyrings/debian-archive-keyring.gpg
flex                flex
gcc                 gcc
libc6-dev           /usr/include/stdio.h
libcap-ng-dev       /usr/include/cap-ng.h
libelf-dev          /usr/include/libelf.h
libseccomp-dev      /usr/include/seccomp.h
make                make
perl                perl
pkg-config          pkg-config
xz-utils            xz
busybox-static      /bin/busybox
'
test='
conmon              conmon
containernetworking-plugins /usr/lib/cni/bridge
containerd          containerd
cpio                cpio
crun                crun
debootstrap         debootstrap
docker.io           dockerd
docker-registry     docker-registry
e2fsprogs           mkfs.ext4
erofs-utils         mkfs.erofs
iperf3              iperf3
iproute2            ip
iptables            iptables
netavark            /usr/lib/podman/netavark
nftables            nft
podman              podman
procps              ps
protobuf-compiler   protoc
runc                runc
strace              strace
util-linux          unshare
bsdutils            script
zstd                zstd
'

case "${1:-build}" in
run) wanted=$run ;;
build) wanted=$run$build ;;
test) wanted=$run$build$test ;;
*)
	echo "usage: $0 run|build|test" >&2
	exit 2
	;;
esac

# Many of these live in sbin, which is not in everybody's path.
PATH=$PATH:/usr/sbin:/sbin
missing=$(echo "$wanted" | while read -r package shown_by; do
	[ -n "$package" ] || continue
	case $shown_by in
	/*) [ -e "$shown_by" ] || echo "$package" ;;
	*) command -v "$shown_by" >/dev/null || echo "$package" ;;
	esac
done)
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "these programs are missing, and this is not Debian; install what provides them:" $missing >&2
	exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then
	sudo=sudo
fi
echo "installing:" $missing
$sudo apt-get update -qq
# Services that come with a package (containerd, a registry) are for the tests to start, not for the machine.
$sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
	apt-get install -y -qq --no-install-recommends $missing
