package config

import (
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// field is one field of a struct as the file sees it.
type field struct {
	name     string
	index    []int
	typ      reflect.Type
	required bool
	within   bounds
}

// bounds are the limits of a number or duration, of those in a list too: the
// tags `min:"1" max:"64"`. Empty is no limit but the type's.
type bounds struct {
	min, max string
}

// fieldsOf lists the exported fields of a struct in the order it declares
// them: by the name in the tag `yaml:"name"`, else by their Go name with a
// small first letter. `yaml:"name,required"` must be given; `yaml:"-"` is
// left alone; an embedded struct without a tag has its fields here.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" {
			continue
		}
		if f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct {
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				out = append(out, inner)
			}
			continue
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			first, size := utf8.DecodeRuneInString(f.Name)
			name = string(unicode.ToLower(first)) + f.Name[size:]
		}
		out = append(out, field{
			name:     name,
			index:    []int{i},
			typ:      f.Type,
			required: options == "required",
			within:   bounds{min: f.Tag.Get("min"), max: f.Tag.Get("max")},
		})
	}
	return out
}

// integers gives the least and the greatest value of an integer type.
func (b bounds) integers(t reflect.Type) (low int64, high uint64) {
	bits := t.Bits()
	switch {
	case t.Kind() >= reflect.Uint:
		high = math.MaxUint64 >> (64 - bits)
	default:
		low, high = math.MinInt64>>(64-bits), math.MaxInt64>>(64-bits)
	}
	if n, err := strconv.ParseInt(b.min, 10, 64); err == nil {
		low = max(low, n)
	}
	if n, err := strconv.ParseUint(b.max, 10, 64); err == nil {
		high = min(high, n)
	}
	return low, high
}

// durations gives the least and the greatest duration.
func (b bounds) durations() (low, high time.Duration) {
	low, high = math.MinInt64, math.MaxInt64
	if d, err := time.ParseDuration(b.min); err == nil {
		low = d
	}
	if d, err := time.ParseDuration(b.max); err == nil {
		high = d
	}
	return low, high
}
