#!/bin/sh
# Installs what `make build` laid out, or removes exactly that again.
#
#   packaging/install.sh install|uninstall PREPARED PREFIX [DESTDIR]
#
# PREFIX is where the programs will find their files at run time; DESTDIR is put before it while
# packaging. The configuration belongs to the machine's owner: an existing one is never overwritten
# (the new one appears beside it as config.toml.new), and a changed one is not removed.
set -eu

action=$1 prepared=$2 prefix=$3 destination=${4:-}
case $prefix in
/*) ;;
*)
	echo "PREFIX must be absolute: $prefix" >&2
	exit 2
	;;
esac
# As the programs look for it: a system prefix keeps its configuration in /etc.
if [ "$prefix" = /usr ]; then
	etc=/etc/cofferdam
else
	etc=$prefix/etc/cofferdam
fi

source=$(dirname "$0")/..

files="
0755 bin/cofferdam $prepared/bin/cofferdam
0755 bin/containerd-shim-cofferdam-v2 $prepared/bin/containerd-shim-cofferdam-v2
0755 libexec/cofferdam/cofferdam-fs $prepared/libexec/cofferdam/cofferdam-fs
0755 libexec/cofferdam/cofferdam-vmm $prepared/libexec/cofferdam/cofferdam-vmm
0644 lib/cofferdam/vmlinux $prepared/lib/cofferdam/vmlinux
0644 lib/cofferdam/initramfs.cpio $prepared/lib/cofferdam/initramfs.cpio
0644 share/bash-completion/completions/cofferdam $source/packaging/completions/cofferdam.bash
0644 share/fish/vendor_completions.d/cofferdam.fish $source/packaging/completions/cofferdam.fish
0644 share/zsh/site-functions/_cofferdam $source/packaging/completions/_cofferdam
"

# Each line: mode, path below PREFIX, and the file that goes there.
list() {
	echo "$files" | while read -r mode file from; do
		[ -z "$file" ] || echo "$mode $file $from"
	done
	for page in "$source"/docs/man/*.1; do
		echo "0644 share/man/man1/${page##*/} $page"
	done
}

case $action in
install)
	list | while read -r _ _ from; do
		if [ ! -f "$from" ]; then
			echo "$from is missing: run \`make build\` first" >&2
			exit 1
		fi
	done
	list | while read -r mode file from; do
		# A new file under the old name: a program that runs keeps the file it started from.
		target=$destination$prefix/$file
		install -D -m "$mode" "$from" "$target.new"
		mv -f "$target.new" "$target"
	done
	config=$destination$etc/config.toml
	if [ -e "$config" ] && ! cmp -s "$prepared/etc/cofferdam/config.toml" "$config"; then
		install -m 0644 "$prepared/etc/cofferdam/config.toml" "$config.new"
		echo "kept $config; the new default is $config.new"
	else
		install -D -m 0644 "$prepared/etc/cofferdam/config.toml" "$config"
	fi
	echo "installed in $destination$prefix"
	;;
uninstall)
	list | while read -r _ file _; do
		rm -f "$destination$prefix/$file"
	done
	config=$destination$etc/config.toml
	rm -f "$config.new"
	if [ -e "$config" ]; then
		if cmp -s "$prepared/etc/cofferdam/config.toml" "$config"; then
			rm -f "$config"
		else
			echo "kept $config, which was changed"
		fi
	fi
	for folder in "$prefix/libexec/cofferdam" "$prefix/lib/cofferdam" "$etc"; do
		[ ! -d "$destination$folder" ] || rmdir --ignore-fail-on-non-empty "$destination$folder"
	done
	;;
*)
	echo "usage: $0 install|uninstall PREPARED PREFIX [DESTDIR]" >&2
	exit 2
	;;
esac
