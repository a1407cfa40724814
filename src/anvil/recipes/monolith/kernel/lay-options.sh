#!/bin/sh
# lay-options.sh WHO FRAGMENT [WHO FRAGMENT]...: lay the options of others over /in/base and /in/mitigations, into
# ./base and ./mitigations. What /in/needed names stays as it is, and no two may want one option differently, or two of
# which /in/choices says that there can be one.
set -eu
number=0
for word; do # "who=NAME" is an assignment to awk, and the fragment behind it the file for which it holds
	number=$((number + 1))
	shift
	if [ $((number % 2)) = 1 ]; then set -- "$@" "who=$word"; else set -- "$@" "$word"; fi
done

# FILENAME tells the kinds apart: what is needed, choices, the two fragments of the recipe, and what others add.
awk '
function told(name, value) { return value == "n" ? "# CONFIG_" name " is not set" : "CONFIG_" name "=" value }
function wrong(text) { print text > "/dev/stderr"; bad++ }
FILENAME == "/in/needed" {
	if (/^[A-Z0-9]/) {
		need[$1] = $2
		why[$1] = substr($0, length($1 $2) + 3)
	}
	next
}
FILENAME == "/in/choices" {
	if (/^[A-Z0-9]/) for (field = 1; field <= NF; field++) choice[$field] = FNR
	next
}
{ name = "" }
/^CONFIG_[A-Za-z0-9_]+=/ { name = substr($0, 8, index($0, "=") - 8); value = substr($0, index($0, "=") + 1) }
/^# CONFIG_[A-Za-z0-9_]+ is not set$/ { name = substr($2, 8); value = "n" }
name == "" {
	if (who != "" && !/^[ \t]*(#.*)?$/) wrong("line " FNR " of the fragment of " who " is no option: " $0)
	next
}
who == "" { next }
value == "m" { wrong(who " wants CONFIG_" name "=m, but the kernel is one file without modules: say y or n"); next }
name in want && want[name] != value {
	wrong(by[name] " and " who " contradict each other: one wants " told(name, want[name]) ", the other " \
		told(name, value) "; take it out of one of them")
}
name in need && need[name] != value {
	wrong(who " wants " told(name, value) ", but the boot needs " told(name, need[name]) ": " why[name])
}
value == "y" && name in choice {
	place = choice[name]
	if (place in taken && taken[place] != name)
		wrong(by[taken[place]] " and " who " contradict each other: of CONFIG_" taken[place] " and CONFIG_" name \
			" there can be one; take one out")
	for (other in need)
		if (need[other] == "y" && other != name && choice[other] == place)
			wrong(who " wants CONFIG_" name "=y in place of CONFIG_" other ", which the boot needs: " why[other])
	taken[place] = name
}
!(name in want) { order[++count] = name }
{ want[name] = value; by[name] = who }
END {
	if (bad) exit 1
	for (file in ARGV) if (ARGV[file] == "/in/base" || ARGV[file] == "/in/mitigations") {
		out = ARGV[file]
		sub(/.*\//, "", out)
		printf "" > out
		while ((getline line < ARGV[file]) > 0) {
			name = line
			sub(/^# CONFIG_/, "CONFIG_", name)
			keep = 1
			if (match(name, /^CONFIG_[A-Za-z0-9_]+/)) {
				name = substr(name, 8, RLENGTH - 7)
				keep = !(name in want) && !(name in choice && choice[name] in taken)
			}
			if (keep) print line > out
		}
	}
	for (number = 1; number <= count; number++) {
		name = order[number]
		print "# added by " by[name] "\n" told(name, want[name]) > "base"
	}
	print count + 0 " options added"
}
' /in/needed /in/choices /in/base /in/mitigations "$@"
