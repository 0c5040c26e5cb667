package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

func testAppend(b *bench) {
	b.ok(b.Append("log", []byte("one\n")))
	b.mode("log", 0o644)
	ino := b.stat("log").Ino
	b.ok(b.Append("log", []byte("two\n")))
	b.ok(b.Append("log", nil))
	b.has("log", "one\ntwo\n")
	if got := b.stat("log").Ino; got != ino {
		b.Errorf("inode is %d, want the old one, %d", got, ino)
	}
	b.ok(b.Mkdir("d"))
	b.is(b.Append("d", []byte("x")), syscall.EISDIR)
}

func testWrite(b *bench) {
	f, err := b.Create("f")
	b.ok(err)
	for _, s := range []string{"one", "two", ""} {
		if n, err := f.Write([]byte(s)); n != len(s) || err != nil {
			b.Errorf("wrote %d (%v), want %d", n, err, len(s))
		}
	}
	if n, err := f.WriteAt([]byte("NE"), 1); n != 2 || err != nil {
		b.Errorf("wrote %d (%v), want 2", n, err)
	}
	_, err = f.Write([]byte("three")) // where the last Write ended
	b.ok(err)
	b.has("f", "oNEtwothree")
	b.ok(f.Truncate(4))
	b.has("f", "oNEt")
	b.ok(f.Truncate(1 << 20))
	if st := b.stat("f"); st.Size != 1<<20 || st.Blocks*512 > 1<<19 {
		b.Errorf("size is %d in %d blocks, want %d in few", st.Size, st.Blocks, 1<<20)
	}
	b.ok(f.Close())
	if _, err := f.Write([]byte("late")); err == nil {
		b.Error("a closed file was written")
	}
}

// source makes a file to copy from, beside the root.
func (b *bench) source(fill func(f *os.File)) *os.File {
	b.Helper()
	f, err := os.Create(filepath.Join(b.above, "source"))
	b.ok(err)
	b.Cleanup(func() { f.Close() })
	fill(f)
	return f
}

func randomBytes(n int) []byte {
	data := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data)
	return data
}

func testCopy(b *bench) {
	data := randomBytes(300_001)
	src := b.source(func(f *os.File) { f.Write(data) })
	for _, size := range []int{0, 1, 4096, 5000, 300_000, 300_001} {
		name := fmt.Sprint("copy", size)
		f, err := b.Create(name)
		b.ok(err)
		b.ok(f.CopyFrom(src, int64(size)))
		b.ok(f.Close())
		if got, err := os.ReadFile(b.path(name)); err != nil || !bytes.Equal(got, data[:size]) {
			b.Errorf("copy of %d bytes has %d (%v), or others", size, len(got), err)
		}
	}
	// From another file system.
	far, err := os.CreateTemp("/dev/shm", "moult-test-")
	if err != nil {
		return
	}
	defer os.Remove(far.Name())
	defer far.Close()
	_, err = far.Write(data)
	b.ok(err)
	f, err := b.Create("far")
	b.ok(err)
	b.ok(f.CopyFrom(far, int64(len(data))))
	b.ok(f.Close())
	b.has("far", string(data))
}

func testCopySparse(b *bench) {
	const size, at = 16 << 20, 8 << 20
	data := randomBytes(70_000)
	src := b.source(func(f *os.File) {
		b.ok(f.Truncate(size))
		f.WriteAt(data, at)
	})
	whole, err := os.ReadFile(src.Name())
	b.ok(err)
	for _, part := range []int64{size, at + 100, at - 100, 1 << 20} {
		name := fmt.Sprint("copy", part)
		f, err := b.Create(name)
		b.ok(err)
		b.ok(f.CopyFrom(src, part))
		b.ok(f.Close())
		if got, err := os.ReadFile(b.path(name)); err != nil || !bytes.Equal(got, whole[:part]) {
			b.Errorf("copy of %d bytes has %d (%v), or others", part, len(got), err)
		}
		if st := b.stat(name); st.Blocks*512 > 1<<20 {
			b.Errorf("copy of %d bytes takes %d: the holes are filled", part, st.Blocks*512)
		}
	}
}

func testCopyShort(b *bench) {
	for i, size := range []int64{0, 1, 5000, 1 << 20} {
		src := b.source(func(f *os.File) { f.Truncate(size); f.WriteAt([]byte("x"), max(0, size-1)) })
		have, err := src.Stat()
		b.ok(err)
		f, err := b.Create(fmt.Sprint("f", i))
		b.ok(err)
		b.is(f.CopyFrom(src, have.Size()+1), io.ErrUnexpectedEOF)
		b.ok(f.Close())
	}
}

func testLock(b *bench) {
	f, err := b.Create("f")
	b.ok(err)
	b.ok(f.Lock())
	other, err := os.Open(b.path("f"))
	b.ok(err)
	defer other.Close()
	b.is(unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB), syscall.EWOULDBLOCK)
	b.ok(b.Rename("f", "g"))
	b.is(unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB), syscall.EWOULDBLOCK)
	b.ok(f.Close())
	b.ok(unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	g, err := b.Create("h")
	b.ok(err)
	defer g.Close()
	held, err := os.Open(b.path("h"))
	b.ok(err)
	defer held.Close()
	b.ok(unix.Flock(int(held.Fd()), unix.LOCK_EX))
	b.is(g.Lock(), syscall.EWOULDBLOCK)
}

func testSync(b *bench) {
	b.ok(b.Mkdir("d"))
	f, err := b.Create("d/f")
	b.ok(err)
	_, err = f.Write([]byte("text"))
	b.ok(err)
	f.StartSync()
	b.ok(f.Sync())
	b.ok(f.Close())
	b.ok(b.SyncDir("d"))
	b.ok(b.SyncDir("."))
	b.ok(b.SyncFS())
	b.is(b.SyncDir("d/f"), syscall.ENOTDIR)
	b.is(b.SyncDir("d/missing"), syscall.ENOENT)
}

// testFifo: nobody makes us wait by laying a fifo in the way.
func testFifo(b *bench) {
	b.ok(unix.Mkfifo(b.path("fifo"), 0o644))
	done := make(chan error, 1)
	go func() {
		err := b.SetMeta("fifo", disk.Meta{UID: -1, GID: -1, Mode: 0o640})
		if b.Append("fifo", []byte("x")) == nil {
			err = errors.Join(err, errors.New("append wrote into a fifo"))
		}
		if b.SyncDir("fifo") == nil {
			err = errors.Join(err, errors.New("syncdir synced a fifo"))
		}
		done <- err
	}()
	select {
	case err := <-done:
		b.ok(err)
		b.mode("fifo", 0o640)
	case <-time.After(3 * time.Second):
		// Wake it, so that the directory can be removed.
		f, err := os.OpenFile(b.path("fifo"), os.O_RDWR|syscall.O_NONBLOCK, 0)
		b.ok(err)
		<-done
		f.Close()
		b.Error("it waits for a fifo")
	}
}

func testManyAtOnce(b *bench) {
	for _, d := range []string{"a", "b", "c"} {
		b.ok(b.Mkdir(d))
	}
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range 20 {
				dir := []string{"a", "b", "c"}[(n+i)%3]
				from, to := fmt.Sprintf("%s/.%d-%d", dir, n, i), fmt.Sprintf("%s/%d-%d", dir, n, i)
				f, err := b.Create(from)
				if err != nil {
					b.Error(err)
					return
				}
				f.Write([]byte(to))
				f.SetMeta(disk.Meta{UID: -1, GID: -1, Mode: 0o644})
				f.Close()
				sub := fmt.Sprintf("%s/d%d-%d", dir, n, i)
				for _, err := range []error{
					b.Place(from, to), b.Mkdir(sub), b.Link(to, sub+"/l"), b.Rename(sub, sub+"x"),
					b.Rename(sub+"x/l", sub+"x/m"), b.Remove(sub + "x/m"), b.SyncDir(dir), b.Remove(sub + "x"),
				} {
					if err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for n := range 8 {
		for i := range 20 {
			name := fmt.Sprintf("%s/%d-%d", []string{"a", "b", "c"}[(n+i)%3], n, i)
			b.has(name, name)
		}
	}
}

// testTradingPlaces: directories trade their names all the time, and whoever
// writes into one of them meanwhile finds the one or the other, whole.
func testTradingPlaces(b *bench) {
	b.ok(b.Mkdir("x"))
	b.ok(b.Mkdir("y"))
	if !b.exchanges() {
		b.Skip("no exchange here")
	}
	var writers, traders sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		traders.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := b.Exchange("x", "y"); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	const each = 500
	for n := range 4 {
		writers.Go(func() {
			for i := range each {
				name := fmt.Sprintf("%s/%d-%d", []string{"x", "y"}[i%2], n, i)
				if err := b.Symlink("text", name); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	traders.Wait()
	x, _ := os.ReadDir(b.path("x"))
	y, _ := os.ReadDir(b.path("y"))
	if len(x)+len(y) != 4*each {
		b.Errorf("x and y hold %d links, want %d", len(x)+len(y), 4*each)
	}
}
