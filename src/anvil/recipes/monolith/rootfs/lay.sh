#!/bin/bash
# shellcheck disable=SC2154 # SOURCE_DATE_EPOCH is the cell's
# Read by the card rootfs/root when something is added to the root. The folder it is read in is the root, with all of
# Anvil's own in it; that may be replaced, but no two additions may be at one place.

declare -A laid    # path: who put it there
declare -A folders # path: who needs it to be a folder
homes=() owners=()

refuse() {
	echo "the root cannot be laid out: $*" >&2
	exit 1
}

enter() { # enter FOLDER WHO: it and all above it are there, and are folders
	local folder='' rest=$1/ who=$2
	while [ -n "$rest" ]; do
		folder=${folder:+$folder/}${rest%%/*}
		rest=${rest#*/}
		[ -z "${laid[$folder]:-}" ] || refuse "/$folder is put there by ${laid[$folder]}, and is a folder for $who"
		# following it would leave the root, or write where nobody looks
		[ ! -L "$folder" ] || refuse "/$folder is a folder for $who, but a link to $(readlink "$folder") in the root"
		[ -d "$folder" ] || [ ! -e "$folder" ] || refuse "/$folder is a folder for $who, but a file in the root"
		[ -d "$folder" ] || mkdir -m 755 "$folder"
		folders[$folder]=$who
	done
}

claim() { # claim PATH WHO: make the place free, and its folder be there
	local path=$1 who=$2
	[ -z "${laid[$path]:-}" ] || refuse "${laid[$path]} and $who both put /$path there"
	[ -z "${folders[$path]:-}" ] || refuse "/$path is put there by $who, and is a folder for ${folders[$path]}"
	[ "$path" = "${path#*/}" ] || enter "${path%/*}" "$who"
	[ -L "$path" ] || [ ! -d "$path" ] || refuse "$who puts /$path there, which is a folder in the root"
	rm -f "$path" # not written through: bin/ls and its like are links to busybox
	laid[$path]=$who
}

lay_file() { # lay_file WHO MODE PATH SOURCE
	[ -f "$4" ] || refuse "$1 puts /$3 there, but what it names is no file"
	claim "$3" "$1"
	install -m "$2" "$4" "$3"
}

lay_link() { # lay_link WHO PATH TARGET
	claim "$2" "$1"
	ln -s -- "$3" "$2"
}

lay_tree() { # lay_tree WHO FOLDER: all that is in it, with its modes
	local path
	[ -d "$2" ] || refuse "$1 lays out a tree, but what it names is no folder"
	while IFS= read -r -d '' path; do
		if [ -L "$2/$path" ] || [ ! -d "$2/$path" ]; then
			claim "$path" "$1"
			cp --no-dereference --preserve=mode "$2/$path" "$path"
		elif [ -d "$path" ]; then
			enter "$path" "$1"
		else
			enter "$path" "$1"
			chmod --reference="$2/$path" "$path"
		fi
	done < <(cd "$2" && find . -mindepth 1 -printf '%P\0' | sort -z)
}

lay_home() { # lay_home WHO UID GID FOLDER: what has been put into it belongs to the user too
	enter "$4" "$1"
	chmod 750 "$4"
	homes+=("$4")
	owners+=("$2:$3")
}

pack_root() { # all of it is root's, but homes and what is in them
	local home number size common left_out=()
	common=(--sort=name "--mtime=@$SOURCE_DATE_EPOCH" --numeric-owner --format=gnu)
	for home in "${homes[@]}"; do left_out+=("--exclude=./$home"); done
	tar "${common[@]}" --owner=0 --group=0 --anchored "${left_out[@]}" -cf /out/root.tar .
	for number in "${!homes[@]}"; do
		tar "${common[@]}" "--owner=${owners[$number]%:*}" "--group=${owners[$number]#*:}" \
			-rf /out/root.tar "./${homes[$number]}"
	done
	size=$(stat -c %s /out/root.tar)
	[ "$size" -le $((100 << 20)) ] || refuse "it has $((size >> 20)) MiB, and at most 100 are written the same way" \
		"each time: zfs_dirty_data_max in rootfs.py and the memory of the machine that fills the pool set the limit." \
		"Leave something out, or put what is large on a disk of its own"
}
