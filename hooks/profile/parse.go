package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// document is a base profile in any of the formats taken: the fields of OCI's linux.seccomp, and those that Docker's and podman's format adds.
type document struct {
	DefaultAction    string         `json:"defaultAction"`
	DefaultErrnoRet  *uint          `json:"defaultErrnoRet"`
	DefaultErrno     string         `json:"defaultErrno"` // podman: a name such as EPERM
	Architectures    []string       `json:"architectures"`
	ArchMap          []archMapEntry `json:"archMap"`
	Flags            []string       `json:"flags"`
	ListenerPath     string         `json:"listenerPath"`
	ListenerMetadata string         `json:"listenerMetadata"`
	Syscalls         []docRule      `json:"syscalls"`
}

type archMapEntry struct {
	Architecture     string   `json:"architecture"`
	SubArchitectures []string `json:"subArchitectures"`
}

type docRule struct {
	Name     string     `json:"name"` // Docker before 1.13: one name
	Names    []string   `json:"names"`
	Action   string     `json:"action"`
	ErrnoRet *uint      `json:"errnoRet"`
	Errno    string     `json:"errno"` // podman
	Args     []docArg   `json:"args"`
	Includes conditions `json:"includes"`
	Excludes conditions `json:"excludes"`
}

type docArg struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo"`
	Op       string `json:"op"`
}

// conditions are on the container and its host; all of those given have to hold for includes, any of them for excludes.
type conditions struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"`
	MinKernel string   `json:"minKernel"`
}

// parse decodes a profile, or finds it in a config.json. Unknown fields are ignored, as all runtimes do.
func parse(base []byte) (*document, error) {
	var file struct {
		document
		OCIVersion string `json:"ociVersion"`
		Linux      *struct {
			Seccomp *document `json:"seccomp"`
		} `json:"linux"`
	}
	dec := json.NewDecoder(bytes.NewReader(base))
	if err := dec.Decode(&file); err != nil {
		return nil, located(base, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("%s: something follows the profile", position(base, dec.InputOffset()))
	}
	doc := &file.document
	switch {
	case file.Linux != nil && file.Linux.Seccomp != nil:
		doc = file.Linux.Seccomp
	case file.Linux != nil || file.OCIVersion != "":
		return nil, errors.New("the config.json has no linux.seccomp")
	}
	if doc.DefaultAction == "" {
		return nil, errors.New("defaultAction is missing; is this a seccomp profile?")
	}
	return doc, nil
}

// located says in one line what of the JSON is wrong, and where.
func located(base []byte, err error) error {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("it is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: unexpected end of JSON input", position(base, int64(len(base))))
	case errors.As(err, &syntax):
		// Offset counts the offending byte.
		return fmt.Errorf("%s: %s", position(base, syntax.Offset-1), syntax.Error())
	case errors.As(err, &mismatch):
		field := strings.TrimPrefix(mismatch.Field, "document.")
		if field == "" {
			field = "profile"
		}
		return fmt.Errorf("%s: %s cannot be a JSON %s", position(base, mismatch.Offset), field, mismatch.Value)
	}
	return err
}

// position gives line and column, both from 1, of a byte.
func position(base []byte, offset int64) string {
	offset = max(0, min(offset, int64(len(base))))
	before := base[:offset]
	line := bytes.Count(before, []byte("\n")) + 1
	column := int(offset) - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("line %d, column %d", line, column)
}
