package dispatch

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// parking is where workers wait for their next job: in the kernel, each on a
// pipe of its own. Handed over by a channel a job would take two wake-ups, one
// of Go's scheduler and one of the thread that the worker is locked to, both on
// a CPU that sleeps; and a pipe's writer says that it will soon sleep itself, so
// that the worker may have its CPU. Half of the hand-over's 100 µs.
type parking struct {
	mu     sync.Mutex // guards the rest
	idle   []*place   // the last to come is the first to go
	closed bool
}

// place is where one worker waits.
type place struct {
	read, write int
	job         *job // set by whoever has taken the place out of idle, before the write
}

func newPlace() (*place, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	return &place{read: fds[0], write: fds[1]}, nil
}

func (p *place) close() {
	_ = unix.Close(p.read)
	_ = unix.Close(p.write)
}

// give wakes the worker with a job, or with none, to end.
func (p *place) give(j *job) {
	p.job = j
	for {
		_, err := unix.Write(p.write, []byte{0})
		if err != unix.EINTR {
			return // a pipe that is empty, and that its owner holds open, takes a byte
		}
	}
}

// hand gives a job to an idle worker, if there is one.
func (k *parking) hand(j *job) bool {
	k.mu.Lock()
	n := len(k.idle)
	if n == 0 {
		k.mu.Unlock()
		return false
	}
	p := k.idle[n-1]
	k.idle = k.idle[:n-1]
	k.mu.Unlock()
	p.give(j)
	return true
}

// wait is an idle worker's: it returns its next job, or nil if none comes in
// time, or if there are idle workers enough.
func (k *parking) wait(p *place) *job {
	k.mu.Lock()
	if k.closed || len(k.idle) >= idleWorkers {
		k.mu.Unlock()
		return nil
	}
	k.idle = append(k.idle, p)
	k.mu.Unlock()
	if !p.readable(idleTime) && k.leave(p) {
		return nil
	}
	// Somebody has taken the place: a job is there or on its way.
	var b [1]byte
	for {
		if _, err := unix.Read(p.read, b[:]); err != unix.EINTR {
			return p.job
		}
	}
}

// leave takes a place out of idle; false if somebody else has done so.
func (k *parking) leave(p *place) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, other := range k.idle {
		if other == p {
			k.idle = append(k.idle[:i], k.idle[i+1:]...)
			return true
		}
	}
	return false
}

// readable waits for a byte.
func (p *place) readable(patience time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(p.read), Events: unix.POLLIN}}
	for end := time.Now().Add(patience); ; {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// close sends all idle workers home, and those that come later.
func (k *parking) close() {
	k.mu.Lock()
	idle := k.idle
	k.idle, k.closed = nil, true
	k.mu.Unlock()
	for _, p := range idle {
		p.give(nil)
	}
}
