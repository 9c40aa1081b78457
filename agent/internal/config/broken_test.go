package config

import (
	"errors"
	"strings"
	"testing"
)

// TestBroken checks the whole of each line: what an operator reads, and what a
// test of "callgate check" relies on.
func TestBroken(t *testing.T) {
	tests := []struct {
		name string
		text string
		want []string // all lines, in order, without "test.yaml:"
	}{
		{"unknown top field", "profile: {}\n", []string{
			`1:1: profile: unknown field, did you mean "profiles"? want one of: allowUids, profiles, select, limits`}},
		{"top is a list", "- a\n", []string{`1:1: want a mapping, have a list`}},
		{"top is a string", "hello\n", []string{`1:1: want a mapping, have the string "hello"`}},
		{"duplicate top field", "allowUids: [0]\nlimits: {}\nallowUids: [1]\n", []string{
			`3:1: allowUids: duplicate key, first given at line 1`}},

		{"uids not a list", "allowUids: 0\n", []string{`1:12: allowUids: want a list, have the number "0"`}},
		{"uids nothing", "allowUids:\n", []string{
			`1:1: allowUids: want a list, have nothing (write [] for an empty one, or leave the field out for its default)`}},
		{"uid negative", "allowUids: [0, -1]\n", []string{
			`1:16: allowUids[1]: -1: want a whole number from 0 to 4294967294`}},
		{"uid nobody", "allowUids: [4294967295]\n", []string{
			`1:13: allowUids[0]: 4294967295: want a whole number from 0 to 4294967294`}},
		{"uid name", "allowUids:\n  - root\n", []string{
			`2:5: allowUids[0]: want a whole number from 0 to 4294967294, have the string "root"`}},
		{"uid octal", "allowUids: [010]\n", []string{
			`1:13: allowUids[0]: 010: want a whole number without leading zeros (0o10 is octal)`}},

		{"profiles a list", "profiles: [default]\n", []string{`1:11: profiles: want a mapping, have a list`}},
		{"profile a list", "profiles:\n  default: [mknod]\n", []string{`2:12: profiles.default: want a mapping, have a list`}},
		{"profile name", "profiles:\n  a b: {}\n", []string{
			`2:3: profiles."a b": want a name of letters, digits, dots, underscores and dashes, 64 at most`}},
		{"profile number", "profiles:\n  1: {}\n", []string{
			`2:3: profiles: want a name before the colon, have the number "1"`}},
		{"duplicate profile", "profiles:\n  a: {}\n  b: {}\n  \"a\": {}\n", []string{
			`4:3: profiles.a: duplicate key, first given at line 2`}},

		{"unknown kind", "profiles:\n  default:\n    mkond: {}\n", []string{
			`3:5: profiles.default.mkond: unknown kind, did you mean "mknod"? want one of: mknod, mount, plain, picky`}},
		{"far unknown kind", "profiles:\n  default:\n    teleport: {}\n", []string{
			`3:5: profiles.default.teleport: unknown kind, want one of: mknod, mount, plain, picky`}},
		{"duplicate kind", "profiles:\n  default:\n    mknod: {}\n    mknod: {}\n", []string{
			`4:5: profiles.default.mknod: duplicate key, first given at line 3`}},
		{"kind off", "profiles:\n  default:\n    mknod: off\n", []string{
			`3:12: profiles.default.mknod: want a mapping (a kind that is not named is off), have the string "off"`}},
		{"kind false", "profiles:\n  default:\n    mknod: false\n", []string{
			`3:12: profiles.default.mknod: want a mapping (a kind that is not named is off), have false`}},

		{"policy field", "profiles:\n  default:\n    mknod:\n      alow: []\n", []string{
			`4:7: profiles.default.mknod.alow: unknown field, did you mean "allow"? want allow`}},
		{"policy value", indent("profiles:", "  default:", "    mknod:", "      allow:",
			`        - "c 1:3"`, `        - "c 1:5"`, `        - "c 1:x"`), []string{
			`7:11: profiles.default.mknod.allow[2]: "c 1:x": want TYPE MAJOR:MINOR, such as c 1:3`}},
		{"policy value nothing", indent("profiles:", "  default:", "    mknod:", "      allow:", "        -", "        - c 1:3"), []string{
			`5:10: profiles.default.mknod.allow[0]: want a string, have nothing`}},
		{"policy value a mapping", "profiles:\n  default:\n    mknod:\n      allow: [{c: 1}]\n", []string{
			`4:15: profiles.default.mknod.allow[0]: want a string, have a mapping`}},
		{"policy list nothing", "profiles:\n  default:\n    mknod:\n      allow:\n      # - c 1:3\n", []string{
			`4:7: profiles.default.mknod.allow: want a list, have nothing (write [] for an empty one, or leave the field out for its default)`}},
		{"policy list a string", "profiles:\n  default:\n    mknod:\n      allow: c 1:3\n", []string{
			`4:14: profiles.default.mknod.allow: want a list, have the string "c 1:3"`}},
		{"policy required", "profiles:\n  default:\n    mount:\n      allow:\n        - source: []\n", []string{
			`5:11: profiles.default.mount.allow[0].type: missing, want a string`}},
		{"policy required misspelled", "profiles:\n  default:\n    mount:\n      allow:\n        - typ: ext4\n", []string{
			`5:11: profiles.default.mount.allow[0].typ: unknown field, did you mean "type"? want one of: type, source, options, shift, depth, ratio, wait, env`}},
		{"policy bool", "profiles:\n  default:\n    mount: {allow: [{type: ext4, shift: yes}]}\n", []string{
			`3:41: profiles.default.mount.allow[0].shift: want true or false, have the string "yes"`}},
		{"policy string", "profiles:\n  default:\n    mount: {allow: [{type: 4}]}\n", []string{
			`3:28: profiles.default.mount.allow[0].type: want a string, have the number "4" (put it in quotes)`}},
		{"policy bounds", "profiles:\n  default:\n    mount: {allow: [{type: a, depth: 10}]}\n", []string{
			`3:38: profiles.default.mount.allow[0].depth: 10: want a whole number from 1 to 9`}},
		{"policy float", "profiles:\n  default:\n    mount: {allow: [{type: a, ratio: .inf}]}\n", []string{
			`3:38: profiles.default.mount.allow[0].ratio: want a number, have the number ".inf"`}},
		{"policy duplicate in a map", "profiles:\n  default:\n    mount:\n      allow:\n        - type: a\n          env: {A: x, A: y}\n", []string{
			`6:23: profiles.default.mount.allow[0].env.A: duplicate key, first given at line 6`}},
		{"policy validate", "profiles:\n  default:\n    mount:\n      via: {program: /bin/f, kernel: true}\n", []string{
			`4:12: profiles.default.mount.via: want program or kernel, not both`}},
		{"policy of a kind without", "profiles:\n  default:\n    plain: {a: b}\n", []string{
			`3:13: profiles.default.plain: the kind has no settings, want nothing or {}`}},
		{"policy as a whole", "profiles:\n  default:\n    picky: {}\n", []string{
			`3:12: profiles.default.picky: no program want one`}},
		{"policy as a whole, nothing", "profiles:\n  default:\n    picky:\n", []string{
			`3:5: profiles.default.picky: no program want one`}},

		{"select a mapping", "select: {metadata: a}\n", []string{`1:9: select: want a list, have a mapping`}},
		{"select nothing to match", "profiles: {a: {}}\nselect:\n  - {profile: a}\n", []string{
			`3:5: select[0]: nothing to match, want at least one of: metadata, annotation, uid`}},
		{"select no profile field", "select:\n  - {metadata: a}\n", []string{
			`2:5: select[0].profile: missing, want a string`}},
		{"select unknown profile", "profiles:\n  builder: {}\nselect:\n  - {metadata: a, profile: builder}\n  - metadata: b\n    profile: buidler\n", []string{
			`6:14: select[1].profile: no profile "buidler", did you mean "builder"? want builder`}},
		{"select default that is not there", "select:\n  - {uid: 5, profile: default}\n", []string{
			`2:23: select[0].profile: no profile "default", there are none`}},
		{"select annotation", "profiles: {a: {}}\nselect:\n  - {annotation: callgate.profile, profile: a}\n", []string{
			`3:18: select[0].annotation: "callgate.profile": want key=value`}},
		{"select metadata number", "profiles: {a: {}}\nselect:\n  - {metadata: 12, profile: a}\n", []string{
			`3:16: select[0].metadata: want a string, have the number "12" (put it in quotes)`}},

		{"limit unknown", "limits:\n  callTimeuot: 30s\n", []string{
			`2:3: limits.callTimeuot: unknown field, did you mean "callTimeout"? want one of: registrationBytes, waitingConnectionsPerUid, listenersPerUid, callsPerContainer, workersPerContainer, callTimeout`}},
		{"limit number for a duration", "limits:\n  callTimeout: 30\n", []string{
			`2:16: limits.callTimeout: want a duration such as 30s or 1m30s, from 1ms to 24h, have the number "30"`}},
		{"limit zero duration", "limits:\n  callTimeout: 0s\n", []string{
			`2:16: limits.callTimeout: "0s": want a duration such as 30s or 1m30s, from 1ms to 24h`}},
		{"limit zero", "limits:\n  workersPerContainer: 0\n", []string{
			`2:24: limits.workersPerContainer: 0: want a whole number from 1 to 256`}},
		{"limit fraction", "limits:\n  callsPerContainer: 1.5\n", []string{
			`2:22: limits.callsPerContainer: want a whole number from 1 to 65536, have the number "1.5"`}},
		{"limit overflow", "limits:\n  registrationBytes: 99999999999999999999999\n", []string{
			`2:22: limits.registrationBytes: want a whole number from 4096 to 67108864, have the number "99999999999999999999999"`}},

		{"several, in file order", indent("profiles:", "  default:", "    mknod: {allow: [x]}", "limits: {a: 1}", "allowUids: [x]"), []string{
			`3:21: profiles.default.mknod.allow[0]: "x": want TYPE MAJOR:MINOR, such as c 1:3`,
			`4:10: limits.a: unknown field, want one of: registrationBytes, waitingConnectionsPerUid, listenersPerUid, callsPerContainer, workersPerContainer, callTimeout`,
			`5:13: allowUids[0]: want a whole number from 0 to 4294967294, have the string "x"`}},

		{"anchor", "limits: &a {}\n", []string{`1:9: anchors (&name) are not supported in a configuration, write the value out`}},
		{"alias", "limits: *a\n", []string{`1:9: aliases (*name) are not supported in a configuration, write the value out`}},
		{"tag", "limits: !!map {}\n", []string{`1:9: tags (!name) are not supported in a configuration, write the value out`}},
		{"merge key", "limits:\n  <<: {}\n", []string{`2:3: merge keys (<<) are not supported in a configuration, write the value out`}},
		{"two documents", "limits: {}\n---\nlimits: {}\n", []string{`2:1: a second document begins, want one document in a file`}},
		{"dedent at the top", " limits: {}\nselect: []\n", []string{`2:1: not valid YAML: value is not allowed in this context`}},
		{"billion laughs", "a: &a [x]\nb: &b [*a, *a]\n", []string{
			`1:4: anchors (&name) are not supported in a configuration, write the value out`,
			`2:4: anchors (&name) are not supported in a configuration, write the value out`}},
		{"alias of its own list", "limits: {a: [&a , *a]}\n", []string{
			`1:14: anchors (&name) are not supported in a configuration, write the value out`,
			`1:19: aliases (*name) are not supported in a configuration, write the value out`}},
		{"list as a key", "? [a]\n: b\n", []string{`1:3: the key of a mapping is a list or a mapping, want a name`}},
		{"syntax in a large file", strings.Repeat("#\n", 40_000) + "a: [\n", []string{`40001: not valid YAML: did not find expected node content`}},
		{"unclosed list", "allowUids: [0\nlimits: {}\n", []string{`2:1: not valid YAML: ',' or ']' must be specified`}},
		{"tab", "limits:\n\tcallTimeout: 1s\n", []string{
			`2:1: not valid YAML: found character ' ' that cannot start any token (indent with spaces, not tabs)`}},
		{"two colons", "limits: {}\nallowUids: a: b\n", []string{`2:12: not valid YAML: mapping value is not allowed in this context`}},
		{"unclosed quote", "limits: {}\nallowUids: \"x\n", []string{`2:12: not valid YAML: could not find end character of double-quoted text`}},
		{"not UTF-8", "limits: {}\n# \xff\n", []string{`2:3: not valid YAML: byte 0xff is not UTF-8`}},
		{"NUL", "limits: {}\nx\x00: {}\n", []string{`2:2: not valid YAML: control character U+0000`}},
		{"deep flow", strings.Repeat("[", 100), []string{`1:65: nested deeper than 64 levels`}},
		{"deep flow, closed", strings.Repeat("[", 100) + strings.Repeat("]", 100), []string{`1:66: nested deeper than 64 levels`}},
		{"deeper flow", strings.Repeat("[", 60_000), []string{`1:65: nested deeper than 64 levels`}},
		{"deepest flow", strings.Repeat("[", 1_000_000), []string{` not valid YAML: exceeded max depth of 10000`}},
		{"deep lists", strings.Repeat("- ", 100), []string{`1:131: nested deeper than 64 levels`}},
		{"deepest lists", strings.Repeat("- ", 500_000), []string{` not valid YAML: exceeded max depth of 10000`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse("test.yaml", []byte(tt.text), fakeKinds())
			if err == nil {
				t.Fatalf("no error, want %q", tt.want)
			}
			if c != nil {
				t.Error("a configuration beside the error")
			}
			want := "test.yaml:" + strings.Join(tt.want, "\ntest.yaml:")
			if err.Error() != want {
				t.Errorf("\nhave %s\nwant %s", err, want)
			}
			var all *Errors
			if !errors.As(err, &all) || len(all.List) != len(tt.want) {
				t.Errorf("have %T, want *Errors with %d", err, len(tt.want))
			}
		})
	}
}

func TestDeepIndentation(t *testing.T) {
	var b strings.Builder
	for i := range 1400 {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	_, err := Parse("test.yaml", []byte(b.String()), fakeKinds())
	if err == nil || !strings.Contains(err.Error(), "nested deeper than 64 levels") {
		t.Fatalf("have %v", err)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := Parse("test.yaml", []byte("allowUids: ["+strings.Repeat("x, ", 100)+"]\n"), fakeKinds())
	var all *Errors
	if !errors.As(err, &all) {
		t.Fatalf("have %v", err)
	}
	if len(all.List) != 20 || all.More != 80 {
		t.Errorf("have %d and %d more", len(all.List), all.More)
	}
	lines := strings.Split(err.Error(), "\n")
	if last := lines[len(lines)-1]; len(lines) != 21 || last != "test.yaml: 80 more errors not shown" {
		t.Errorf("have %d lines, last %q", len(lines), last)
	}
}

// TestErrorIsOneLine: a value is text that somebody else may have written, and
// it ends in terminals and logs.
func TestErrorIsOneLine(t *testing.T) {
	long := strings.Repeat("é", 5000)
	for _, text := range []string{
		"profiles: {default: {mknod: {allow: [\"a\\nb\\e[31m\"]}}}\n",
		"\"a\\nb\\e\": 1\n",
		"profiles: {default: {mknod: {allow: [\"" + long + "\"]}}}\n",
		long + ": 1\n",
		"profiles: {\"" + long + "\": {}}\n",
	} {
		_, err := Parse("test\n.yaml", []byte(text), fakeKinds())
		if err == nil {
			t.Fatalf("no error: %q", text)
		}
		if line := err.Error(); strings.ContainsAny(line, "\n\x1b") || len(line) > 2000 {
			t.Errorf("have %d bytes: %q", len(line), line)
		}
	}
}

func TestTextErrorIsWrapped(t *testing.T) {
	_, err := Parse("test.yaml", []byte("profiles: {a: {}}\nselect: [{annotation: x, profile: a}]\n"), fakeKinds())
	var one *Error
	if !errors.As(err, &one) || one.Err == nil || one.Line != 2 || one.Field != "select[0].annotation" {
		t.Fatalf("have %#v", one)
	}
	if !errors.Is(err, one.Err) {
		t.Error("the type's own error is not in the chain")
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "a", 0}, {"mknod", "mkond", 2}, {"allow", "alow", 1}, {"kitten", "sitting", 3}, {"a", "abcd", 3}, {"ab", "", 2}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
