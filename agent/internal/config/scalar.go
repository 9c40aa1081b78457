package config

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

func (d *decoder) scalar(n *node, v reflect.Value, path string, within bounds) {
	switch v.Kind() {
	case reflect.String:
		if n.kind != str {
			d.wrongType(n, path, "a string")
			return
		}
		v.SetString(n.text)
	case reflect.Bool:
		if n.kind != boolean {
			d.wrongType(n, path, "true or false")
			return
		}
		v.SetBool(strings.EqualFold(n.text, "true"))
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(n.text, v.Type().Bits())
		if err != nil || (n.kind != float && n.kind != integer) || math.IsNaN(f) || math.IsInf(f, 0) {
			d.wrongType(n, path, "a number")
			return
		}
		v.SetFloat(f)
	default:
		d.number(n, v, path, within)
	}
}

func (d *decoder) number(n *node, v reflect.Value, path string, within bounds) {
	low, high := within.integers(v.Type())
	wanted := fmt.Sprintf("a whole number from %d to %d", low, high)
	if n.kind != integer {
		d.wrongType(n, path, wanted)
		return
	}
	// 010 is eight to YAML 1.1 and ten to 1.2.
	digits := strings.TrimLeft(n.text, "+-")
	if len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		d.r.add(n, path, "%s: want a whole number without leading zeros (0o10 is octal)", n.text)
		return
	}
	if v.CanUint() {
		u, err := strconv.ParseUint(strings.TrimPrefix(n.text, "+"), 0, 64)
		if err != nil || u > high || (low > 0 && u < uint64(low)) {
			d.r.add(n, path, "%s: want %s", n.text, wanted)
			return
		}
		v.SetUint(u)
		return
	}
	i, err := strconv.ParseInt(n.text, 0, 64)
	if err != nil || i < low || (i > 0 && uint64(i) > high) {
		d.r.add(n, path, "%s: want %s", n.text, wanted)
		return
	}
	v.SetInt(i)
}

func (d *decoder) duration(n *node, v reflect.Value, path string, within bounds) {
	wanted := "a duration such as 30s or 1m30s"
	if within.min != "" && within.max != "" {
		wanted += fmt.Sprintf(", from %s to %s", within.min, within.max)
	}
	if n.kind != str {
		d.wrongType(n, path, wanted)
		return
	}
	got, err := time.ParseDuration(n.text)
	low, high := within.durations()
	if err != nil || got < low || got > high {
		d.r.add(n, path, "%s: want %s", quote(n.text), wanted)
		return
	}
	v.SetInt(int64(got))
}

func (d *decoder) wrongType(n *node, path, wanted string) {
	var have, hint string
	switch n.kind {
	case null:
		have = "nothing"
		if wanted == "a list" {
			hint = " (write [] for an empty one, or leave the field out for its default)"
		}
	case sequence:
		have = "a list"
	case mapping:
		have = "a mapping"
	case str:
		have = "the string " + quote(n.text)
	case boolean:
		have = n.text
	default:
		have = "the number " + quote(n.text)
	}
	if wanted == "a string" && (n.kind == boolean || n.kind == integer || n.kind == float) {
		hint = " (put it in quotes)"
	}
	d.r.add(n, path, "want %s, have %s%s", wanted, have, hint)
}

// want says in the operator's words what a Go type holds.
func want(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case reflect.PointerTo(t).Implements(textType):
		return "a string"
	case t == durationType:
		return "a duration such as 30s"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a mapping"
	default:
		return "a number"
	}
}
