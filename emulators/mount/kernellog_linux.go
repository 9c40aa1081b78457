package mount

import (
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/tracee"
)

// kernelLog reads what the kernel logs about a device from some moment on: the
// filesystems whose words are not in their context (ext4, xfs, btrfs) write
// them there. A nil one has nothing to say.
type kernelLog struct {
	fd     tracee.Handle
	device func() string
}

// kernelLogs keeps descriptors of the log: opening one takes longer than all that
// is done with it. Safe for concurrent use.
type kernelLogs struct {
	mu   sync.Mutex // guards free
	free []tracee.Handle
}

// maxFreeLogs bounds the descriptors that are kept.
const maxFreeLogs = 4

// begin begins now; whoever asked ends it. device is asked for the device's name
// if there is something to be read. nil where there is no log.
func (p *kernelLogs) begin(device func() string) *kernelLog {
	fd, err := p.take()
	if err != nil {
		return nil
	}
	l := &kernelLog{fd: fd, device: device}
	if _, err := unix.Seek(fd.FD(), 0, unix.SEEK_END); err != nil {
		l.fd.Close()
		return nil
	}
	return l
}

func (p *kernelLogs) take() (tracee.Handle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		fd := p.free[n-1]
		p.free = p.free[:n-1]
		return fd, nil
	}
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return tracee.Handle{}, &os.PathError{Op: "open", Path: "/dev/kmsg", Err: err}
	}
	return tracee.NewHandle(fd), nil
}

func (p *kernelLogs) end(l *kernelLog) {
	if l == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) >= maxFreeLogs {
		l.fd.Close()
		return
	}
	p.free = append(p.free, l.fd)
}

func (p *kernelLogs) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.free {
		p.free[i].Close()
	}
	p.free = nil
}

const (
	maxRecords = 256 // that are read
	maxWords   = 4   // that are kept: the last say what it was
)

// since returns the records about the device, separated by "; ".
func (l *kernelLog) since() string {
	if l == nil {
		return ""
	}
	device := l.device()
	if device == "" {
		return ""
	}
	var words []string
	var buf [8192]byte // one record a read; a longer one gives EINVAL
	for range maxRecords {
		n, err := unix.Read(l.fd.FD(), buf[:])
		if err == unix.EPIPE || err == unix.EINTR || err == unix.EINVAL {
			continue // some were overwritten
		}
		if err != nil || n <= 0 {
			break
		}
		if text := message(string(buf[:n])); mentions(text, device) {
			words = append(words, text)
		}
	}
	return strings.Join(words[max(0, len(words)-maxWords):], "; ")
}

// message is the text of a record: "PREFIX;TEXT\n KEY=VALUE\n…" (dev-kmsg of
// the kernel's Documentation/ABI).
func message(record string) string {
	_, text, _ := strings.Cut(record, ";")
	text, _, _ = strings.Cut(text, "\n")
	return unescape(text)
}

// unescape undoes what the kernel does to bytes that are not printable, and to
// backslashes: \xNN. A record of several lines becomes one.
func unescape(text string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, `\x`)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		c, err := strconv.ParseUint(after[:min(2, len(after))], 16, 8)
		switch {
		case err != nil || len(after) < 2:
			out.WriteString(`\x`)
			text = after
			continue
		case c == '\n':
			out.WriteByte(' ')
		default:
			out.WriteByte(byte(c))
		}
		text = after[2:]
	}
}

// mentions says whether a message is about a device: loop1 is not in "loop10".
func mentions(text, device string) bool {
	for rest := text; ; {
		at := strings.Index(rest, device)
		if at < 0 {
			return false
		}
		rest = rest[at+len(device):]
		if rest == "" || (rest[0] < '0' || rest[0] > '9') && (rest[0] < 'a' || rest[0] > 'z') {
			return true
		}
	}
}
