#!/bin/sh
# check-fragment.sh CONFIG FRAGMENT...: every line of the fragments must be in the resolved .config, or it is named.
# Kconfig drops an option with an unmet dependency without a word; this is the word.
# A "# CONFIG_X is not set" line is also met when CONFIG_X does not appear: invisible options are not written.
config=$1
shift
awk '
FNR == NR { if (match($0, /CONFIG_[A-Za-z0-9_]+/)) have[substr($0, RSTART, RLENGTH)] = $0; next }
/^CONFIG_[A-Za-z0-9_]+=/ { name = $0; sub(/=.*/, "", name); want = $0 }
/^# CONFIG_[A-Za-z0-9_]+ is not set$/ { name = $2; want = $0 }
name != "" {
    total++
    if (name in seen) { print "named twice: " name " (" FILENAME ")"; bad++ }
    seen[name] = 1
    got = (name in have) ? have[name] : "# " name " is not set"
    if (got != want) { print "dropped: " want "; the kernel has: " ((name in have) ? got : "nothing (unknown or unmet)"); bad++ }
    name = ""
}
END { print total + 0 " options asked, " bad + 0 " not met"; exit (bad > 0 || total == 0) }
' "$config" "$@"
