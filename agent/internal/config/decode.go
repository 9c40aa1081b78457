package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"
)

var (
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
	durationType = reflect.TypeFor[time.Duration]()
	rawType      = reflect.TypeFor[raw]()
)

// validator is implemented by a type that has more to say about its value than
// its fields have: "give a source or an address". Called on pointers to
// structs, after all their fields were right.
type validator interface {
	Validate() error
}

// raw is a field that is decoded later, by somebody else.
type raw struct {
	n *node
}

// decoder fills Go values from nodes, strictly, and reports everything that is
// wrong rather than the first thing.
type decoder struct {
	r *report
}

func (d *decoder) value(n *node, v reflect.Value, path string, within bounds) {
	if v.Kind() == reflect.Pointer {
		fresh := reflect.New(v.Type().Elem())
		d.value(n, fresh.Elem(), path, within)
		v.Set(fresh)
		return
	}
	switch {
	case v.Type() == rawType:
		v.Set(reflect.ValueOf(raw{n: n}))
		return
	case v.Addr().Type().Implements(textType):
		d.text(n, v, path)
		return
	case v.Type() == durationType:
		d.duration(n, v, path, within)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		d.list(n, v, path, within)
	case reflect.Map:
		d.table(n, v, path, within)
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		d.scalar(n, v, path, within)
	default:
		d.r.add(n, path, "cannot decode into Go type %s: a mistake in the program", v.Type())
	}
}

func (d *decoder) text(n *node, v reflect.Value, path string) {
	if n.kind == sequence || n.kind == mapping || n.kind == null {
		d.wrongType(n, path, "a string")
		return
	}
	err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.text))
	if err == nil {
		return
	}
	message := err.Error()
	if quoted := quote(n.text); !strings.Contains(message, quoted) {
		message = quoted + ": " + message
	}
	d.r.add(n, path, "%s", message).Err = err
}

// structure decodes a mapping. Fields that it does not name keep their values,
// so a caller sets defaults first; no value at all is the empty mapping.
func (d *decoder) structure(n *node, v reflect.Value, path string) {
	before := len(d.r.list)
	if n.kind != mapping && n.kind != null {
		d.wrongType(n, path, "a mapping")
		return
	}
	fields := fieldsOf(v.Type())
	names := make([]string, len(fields))
	index := make(map[string]int, len(fields))
	for i, f := range fields {
		names[i], index[f.name] = f.name, i
	}
	// A misspelled field is one error, not "unknown" and "missing".
	given := make(map[string]bool, len(fields))
	d.entries(n, path, func(key, item *node) {
		i, known := index[key.text]
		if !known {
			d.r.add(key, join(path, key.text), "unknown field, %s", choices(key.text, names))
			given[suggest(key.text, names)] = true
			return
		}
		given[key.text] = true
		d.value(item, v.FieldByIndex(fields[i].index), join(path, key.text), fields[i].within)
	})
	for _, f := range fields {
		if f.required && !given[f.name] {
			d.r.add(n, join(path, f.name), "missing, want %s", want(f.typ))
		}
	}
	check, ok := v.Addr().Interface().(validator)
	if !ok || len(d.r.list) > before {
		return
	}
	if err := check.Validate(); err != nil {
		d.r.add(n, path, "%s", err.Error()).Err = err
	}
}

// list replaces what v holds: a default is not extended.
func (d *decoder) list(n *node, v reflect.Value, path string, within bounds) {
	if n.kind != sequence {
		d.wrongType(n, path, "a list")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		d.value(item, out.Index(i), fmt.Sprintf("%s[%d]", path, i), within)
	}
	v.Set(out)
}

// table decodes a mapping whose keys the operator names; it replaces what v holds.
func (d *decoder) table(n *node, v reflect.Value, path string, within bounds) {
	if v.Type().Key().Kind() != reflect.String {
		d.r.add(n, path, "cannot decode into Go type %s: a mistake in the program", v.Type())
		return
	}
	if n.kind != mapping {
		d.wrongType(n, path, "a mapping")
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(n.items))
	d.entries(n, path, func(key, item *node) {
		value := reflect.New(v.Type().Elem()).Elem()
		d.value(item, value, join(path, key.text), within)
		out.SetMapIndex(reflect.ValueOf(key.text).Convert(v.Type().Key()), value)
	})
	v.Set(out)
}

// entries calls each for the entries of a mapping, in file order, and reports
// keys that are not names or come twice.
func (d *decoder) entries(n *node, path string, each func(key, item *node)) {
	lines := make(map[string]int, len(n.keys))
	for i, key := range n.keys {
		if key.kind != str {
			d.wrongType(key, path, "a name before the colon")
			continue
		}
		if first, twice := lines[key.text]; twice {
			d.r.add(key, join(path, key.text), "duplicate key, first given at line %d", first)
			continue
		}
		lines[key.text] = key.line
		each(key, n.items[i])
	}
}

// join appends a key to a field's path, in quotes where a bare one could be
// misread.
func join(path, key string) string {
	plain := key != "" && len(key) <= maxQuote && !strings.ContainsFunc(key, func(c rune) bool {
		return c != '-' && c != '_' && c != '/' &&
			(c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	})
	if !plain {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}
