#!/bin/sh
# apply-fragment.sh CONFIG FRAGMENT: lay the fragment's options over a .config.
# BusyBox's kconfig takes KCONFIG_ALLCONFIG for allnoconfig and its like only, not on top of defconfig.
config=$1 fragment=$2
awk '
FNR == NR {
    if (/^CONFIG_[A-Za-z0-9_]+=/) { name = $0; sub(/=.*/, "", name); want[name] = $0 }
    if (/^# CONFIG_[A-Za-z0-9_]+ is not set$/) want[$2] = $0
    next
}
match($0, /CONFIG_[A-Za-z0-9_]+/) && substr($0, RSTART, RLENGTH) in want { next }
{ print }
END { for (name in want) print want[name] | "sort" }
' "$fragment" "$config" > "$config.laid"
mv "$config.laid" "$config"
