//go:build linux

package pidfd

import (
	"testing"

	"golang.org/x/sys/unix"
)

// benchKernels compares the running kernel with what older ones cost.
func benchKernels(b *testing.B, bench func(b *testing.B, k *kernel)) {
	b.Run("running", func(b *testing.B) { bench(b, newKernel()) })
	b.Run("old", func(b *testing.B) { bench(b, oldKernel(unix.EINVAL)) })
}

func BenchmarkOpenThread(b *testing.B) {
	c := startChild(b)
	benchKernels(b, func(b *testing.B, k *kernel) {
		b.ReportAllocs()
		for b.Loop() {
			f, err := k.openThread(c.tid)
			must(b, err)
			must(b, f.Close())
		}
	})
}

func BenchmarkInfo(b *testing.B) {
	c := startChild(b)
	benchKernels(b, func(b *testing.B, k *kernel) {
		f := mustOpenThread(b, k, c.tid)
		b.ReportAllocs()
		for b.Loop() {
			_, err := f.Info()
			must(b, err)
		}
	})
}

func BenchmarkNamespaceID(b *testing.B) {
	c := startChild(b)
	benchKernels(b, func(b *testing.B, k *kernel) {
		f := mustOpenThread(b, k, c.tid)
		b.ReportAllocs()
		for b.Loop() {
			_, err := f.NamespaceID(NSUser)
			must(b, err)
		}
	})
}

func BenchmarkGetFD(b *testing.B) {
	c := startChild(b)
	f := mustOpenThread(b, newKernel(), c.tid)
	b.ReportAllocs()
	for b.Loop() {
		fd, err := f.GetFD(childFile)
		must(b, err)
		must(b, unix.Close(fd))
	}
}

func BenchmarkAlive(b *testing.B) {
	c := startChild(b)
	f := mustOpenThread(b, newKernel(), c.tid)
	b.ReportAllocs()
	for b.Loop() {
		_, err := f.Alive()
		must(b, err)
	}
}
