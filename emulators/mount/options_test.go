package mount

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
)

func key(k string) parameter      { return parameter{key: k} }
func value(k, v string) parameter { return parameter{key: k, value: v, valued: true} }

func TestParseOptions(t *testing.T) {
	many := strings.Repeat("a,", maxParameters)
	for text, want := range map[string][]parameter{
		"":                         nil,
		",":                        nil,
		",,,":                      nil,
		"ro":                       {key("ro")},
		",ro,":                     {key("ro")},
		"a,,b":                     {key("a"), key("b")},
		"data=ordered":             {value("data", "ordered")},
		"data=":                    {value("data", "")},
		"data":                     {key("data")},
		`data=""`:                  {value("data", "")},
		`data="ordered"`:           {value("data", "ordered")},
		`a="b c",d`:                {value("a", "b c"), key("d")},
		"a=b=c":                    {value("a", "b=c")},
		`a="b=c"`:                  {value("a", "b=c")},
		"a=/x/y:z;&|$(x)`'\\":      {value("a", "/x/y:z;&|$(x)`'\\")},
		"a= b ":                    {value("a", " b ")},
		"a=\xff\x01\n":             {value("a", "\xff\x01\n")},
		"user_xattr,nouid32":       {key("user_xattr"), key("nouid32")},
		"a.b:c+d-e_F9":             {key("a.b:c+d-e_F9")},
		"a,a,a=1":                  {key("a"), key("a"), value("a", "1")},
		"errors=remount-ro,data=w": {value("errors", "remount-ro"), value("data", "w")},
		many:                       slices.Repeat([]parameter{key("a")}, maxParameters),
	} {
		got, err := parseOptions(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%.40q: %+v, %v, want %+v", text, got, err, want)
		}
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for text, want := range map[string]error{
		`"`: errQuote, `a="`: errQuote, `a="b`: errQuote, `a="b,c`: errQuote, `a=b"`: errQuote, `a="b""`: errQuote, `"a=b`: errQuote,
		`a="b"c`: errQuote, `a="b"",x`: errQuote, `a=b"c"`: errQuote, `a=""b""`: errQuote, `a="b"c"d"`: errQuote, `a="""`: errQuote,
		`a="b,c"`: errComma, `a=","`: errComma, `x,a="b,c",y`: errComma,
		`"a"`: errKey, `"a=b"`: errKey, `"a,b"`: errKey, `a"="b"`: errQuote,
		"=": errKey, "=b": errKey, "a b": errKey, " a": errKey, "a ": errKey, "a,\tb": errKey, "a/b=c": errKey, "a\\": errKey, "\n": errKey, "ä": errKey,
		"a\xff": errKey, "a'": errKey, "(a)": errKey, "a*": errKey, "a,=,b": errKey, `"",a`: errKey,
		strings.Repeat("a,", maxParameters+1): errMany,
	} {
		got, err := parseOptions(text)
		if !errors.Is(err, want) || got != nil {
			t.Errorf("%.40q: %+v, %v, want %v", text, got, err, want)
		}
	}
}

// TestSmuggling gives a rule that allows data=* and no more what a filesystem,
// or the kernel's older parser, might read otherwise. What is allowed must be
// one option for anybody who reads it.
func TestSmuggling(t *testing.T) {
	policy := `allow: [{type: ext4, source: ["b 7:*"], options: ["data=*", "grpquota"]}]`
	for given, want := range map[string]string{
		"data=ordered":                 "",
		`data="ordered"`:               "",
		"data=":                        "",
		"data=a b":                     "",
		"data=ordered,grpquota":        "",
		",data=ordered,":               "",
		"rw":                           "",
		"async,nolazytime":             "", // the default
		"ro":                           "",
		"data":                         "data",
		"data=ordered,errors=panic":    "errors=panic",
		"errors=panic":                 "errors=panic",
		"errors=panic,data=ordered":    "errors=panic",
		`data="ordered,errors=panic"`:  errComma.Error(),
		`data="ordered",errors=panic`:  "errors=panic",
		`data=ordered" ,x`:             errQuote.Error(),
		`data=ordered",errors=panic,"`: errQuote.Error(),
		`data=",errors=panic`:          errQuote.Error(),
		`data="",errors=panic,""`:      errKey.Error(),
		`"data=ordered,errors=panic"`:  errKey.Error(),
		"data=ordered,,errors=panic":   "errors=panic",
		"data=/x":                      "data=/x", // * is of no path
		"DATA=ordered":                 "DATA=ordered",
		"data =ordered":                errKey.Error(),
		" data=ordered":                errKey.Error(),
		"grpquota=1":                   "grpquota=1",
		"sync":                         "sync",
		"sync=1":                       "sync=1",
		"ro=1":                         "ro=1",
		"rw=x":                         "rw=x",
		"dirsync":                      "dirsync",
		"lazytime":                     "lazytime",
		"source=/dev/sda":              "source=/dev/sda",
		"fd=3":                         "fd=3",
		"loop":                         "loop",
		"loop=/dev/loop0":              "loop=/dev/loop0",
		"context=x":                    "context=x",
		"suid":                         "suid",
		"dev":                          "dev",
		"data=ordered\nerrors=panic":   "", // one value: the kernel is given it whole
	} {
		p, err := load(policy)
		must(t, err)
		got := judge(&p.Allow[0], given)
		if got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}

// judge is what is wrong with options by a rule.
func judge(r *rule, text string) string {
	params, err := parseOptions(text)
	if err != nil {
		return err.Error()
	}
	for _, p := range params {
		var denied emulators.Denied
		switch err := r.allowsParameter(p); {
		case err == nil:
		case errors.As(err, &denied):
			return denied.Detail
		default:
			return err.Error()
		}
	}
	return ""
}

// TestParameterErrno: an option that is not allowed is one that there is not,
// and a flag's no is policy's.
func TestParameterErrno(t *testing.T) {
	p, err := load(`allow: [{type: ext4, source: ["b 7:*"], options: []}]`)
	must(t, err)
	for text, want := range map[string]unix.Errno{"data=x": unix.EINVAL, "source=x": unix.EINVAL, "sync": 0} {
		params, err := parseOptions(text)
		must(t, err)
		var denied emulators.Denied
		if err := p.Allow[0].allowsParameter(params[0]); !errors.As(err, &denied) || denied.Errno != want {
			t.Errorf("%s: %v, errno %v, want %v", text, err, denied.Errno, want)
		}
	}
}

// TestNever: no rule hands these over.
func TestNever(t *testing.T) {
	for name := range never {
		all := []option{{key: name}, {key: name, glob: "*", valued: true}}
		r := rule{Options: &all}
		for _, p := range []parameter{key(name), value(name, "x")} {
			if r.allowsParameter(p) == nil {
				t.Errorf("%s is allowed", p)
			}
		}
		r.Loop = true
		if err := r.allowsParameter(key(name)); (err == nil) != (name == "loop") {
			t.Errorf("%s with loop: true: %v", name, err)
		}
		if r.allowsParameter(value(name, "x")) == nil {
			t.Errorf("%s=x with loop: true is allowed", name)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	for _, s := range []string{"", "ro,data=ordered", `data="a,b"`, `a="b`, `a=b"c"`, ",,a,,", "a=\"\"", strings.Repeat("a,", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseOptions(text)
		if err != nil {
			if list != nil {
				t.Errorf("%q: %+v beside an error", text, list)
			}
			return
		}
		var items []string
		for _, p := range list {
			if strings.ContainsAny(p.value, `,"`) || !isKey(p.key) || strings.ContainsAny(p.key, `,="`) || !p.valued && p.value != "" {
				t.Errorf("%q: %+v", text, p)
			}
			items = append(items, p.String())
		}
		if len(list) > maxParameters {
			t.Errorf("%d parameters", len(list))
		}
		// Whoever splits at every comma reads the same.
		joined := strings.Join(items, ",")
		again, err := parseOptions(joined)
		if err != nil || !slices.Equal(again, list) {
			t.Errorf("%q: %+v, joined %q: %+v, %v", text, list, joined, again, err)
		}
		if n := len(strings.Split(joined, ",")); joined != "" && n != len(list) {
			t.Errorf("%q: %d parameters, but %d between commas of %q", text, len(list), n, joined)
		}
	})
}
