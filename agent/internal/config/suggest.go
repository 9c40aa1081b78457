package config

import (
	"fmt"
	"strings"
)

// maxTypo is the edit distance up to which a name counts as misspelled.
const maxTypo = 2

// suggest returns the name nearest to word, or "" if none is near.
func suggest(word string, names []string) string {
	best, nearest := maxTypo+1, ""
	for _, name := range names {
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d < best && d < len(name) {
			best, nearest = d, name
		}
	}
	return nearest
}

// choices says what a name could have been.
func choices(word string, names []string) string {
	if len(names) == 0 {
		return "there are none"
	}
	list := "want one of: " + strings.Join(names, ", ")
	if len(names) == 1 {
		list = "want " + names[0]
	}
	if near := suggest(word, names); near != "" {
		list = fmt.Sprintf("did you mean %q? %s", near, list)
	}
	return list
}

// distance is the Levenshtein distance in bytes, or maxTypo+1 for any that is
// greater than that by length alone: the word may be as long as the file.
func distance(a, b string) int {
	if len(a)-len(b) > maxTypo || len(b)-len(a) > maxTypo {
		return maxTypo + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
