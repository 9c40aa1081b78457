package config

import (
	"fmt"
	"reflect"

	"github.com/callgate/callgate/emulators"
)

// policy is one kind's part of a profile, at its place in the file. It is
// never changed, so several containers may decode it at once.
type policy struct {
	file string
	path string
	n    *node // mapping or null
}

var _ emulators.Policy = policy{}

// Decode fills into, a pointer to a struct, and reports all that is wrong as
// *Errors; into is then in no defined state. See the package comment for the
// Go types and tags it understands.
func (p policy) Decode(into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("decode policy: want a pointer to a struct, have %T", into)
	}
	d := decoder{r: &report{file: p.file}}
	d.structure(p.n, v.Elem(), p.path)
	return d.r.err()
}

// watched notes whether a kind decoded its policy: one that never looks would
// let a misspelled field pass.
type watched struct {
	policy
	decoded bool
}

func (w *watched) Decode(into any) error {
	w.decoded = true
	return w.policy.Decode(into)
}
