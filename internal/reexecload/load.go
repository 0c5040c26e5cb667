// Package reexecload puts a server under load while it is replaced, and counts
// what gets lost.
//
// The tests and the bench drive their servers with it, ours and those of
// others. It speaks raw HTTP/1.1 over TCP, since net/http repeats a request
// whose connection died, and so hides what is measured here.
//
// The rule of this room: nothing is tried twice. A request counts as answered if
// its whole answer came back and is the right one, as wrong if it is another
// one, and as lost in any other case, whoever may be to blame: a refused or reset
// connection, an end in the middle, half a minute of silence. The one thing that a
// server may do is to say "Connection: close" with an answer; then the next
// request takes a new connection.
package reexecload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Options say what load to put on which server.
type Options struct {
	Addr      string        // host:port, or the path of a unix socket
	Path      string        // of the request; "" is /
	Workers   int           // requests at once; 0 is 16
	KeepAlive bool          // one connection for all requests of a worker, rather than one each
	BodySize  int           // bytes of each request's body; 0 is 64
	Think     time.Duration // mean pause of a worker between two requests; 0 is none
	Requests  int           // stop after so many in all; 0 is when the context ends

	// Check says what is wrong with an answer; nil is Echo. It is called by
	// several goroutines at once.
	Check func(sent []byte, a Answer) error
}

// Answer is what came back.
type Answer struct {
	Status int
	Header map[string]string // by name in lower case; the last of several counts
	Body   []byte
}

// Result is what became of the requests.
type Result struct {
	Answered int
	Lost     int
	Wrong    int

	// Closed is how many of the lost were sent on a connection that the server
	// had closed before. A client that looks first, as most do, takes a new
	// connection then; what is lost for it as well is the rest, by a race that it
	// cannot win.
	Closed int

	Why []string // of the first that were lost or wrong

	took []time.Duration // of those that were answered, ascending
}

// maxWhy is how many failures a Result explains.
const maxWhy = 10

// silence is how long an answer may take.
const silence = 30 * time.Second

// Echo wants the status 200 and the body that was sent.
func Echo(sent []byte, a Answer) error {
	if a.Status != 200 || string(a.Body) != string(sent) {
		return fmt.Errorf("status %d and %d bytes %.40q, want 200 and the %d bytes that were sent", a.Status, len(a.Body), a.Body, len(sent))
	}
	return nil
}

// Run sends requests until the context ends or all are sent, and waits for the
// answers. A request that has begun is finished: the end of the context loses
// none.
func Run(ctx context.Context, o Options) Result {
	o = o.withDefaults()
	var left chan struct{} // a token for each request; nil is without end
	if o.Requests > 0 {
		left = make(chan struct{}, o.Requests)
		for range o.Requests {
			left <- struct{}{}
		}
		close(left)
	}
	results := make([]Result, o.Workers)
	var workers sync.WaitGroup
	for i := range results {
		workers.Go(func() { results[i] = o.work(ctx, i, left) })
	}
	workers.Wait()
	return Sum(results...)
}

func (o Options) withDefaults() Options {
	if o.Workers == 0 {
		o.Workers = 16
	}
	if o.BodySize == 0 {
		o.BodySize = 64
	}
	if o.Check == nil {
		o.Check = Echo
	}
	return o
}

// work is one worker.
func (o Options) work(ctx context.Context, id int, left <-chan struct{}) (r Result) {
	c := client{addr: o.Addr}
	defer c.close()
	for n := 0; ctx.Err() == nil; n++ {
		if left != nil {
			if _, ok := <-left; !ok {
				break
			}
		}
		o.request(&c, id, n, &r)
		if o.Think > 0 {
			pause(ctx, o.Think/2+rand.N(o.Think))
		}
	}
	return r
}

// request makes one and counts it.
func (o Options) request(c *client, worker, n int, r *Result) (took time.Duration) {
	body := bodyOf(worker, n, o.BodySize)
	closed := c.conn != nil && c.closed()
	start := time.Now()
	a, err := c.post(o.Path, body, o.KeepAlive)
	took = time.Since(start)
	if err != nil {
		r.Lost++
		if closed {
			r.Closed++
		}
		r.explain(fmt.Sprintf("worker %d, request %d, lost after %v: %v", worker, n, took, err))
		return took
	}
	if err := o.Check(body, a); err != nil {
		r.Wrong++
		r.explain(fmt.Sprintf("worker %d, request %d, wrong: %v", worker, n, err))
		return took
	}
	r.Answered++
	r.took = append(r.took, took)
	return took
}

// bodyOf is different for each request, so that an answer to another is found
// out.
func bodyOf(worker, request, size int) []byte {
	body := fmt.Appendf(nil, "worker %d request %d ", worker, request)
	for len(body) < size {
		body = append(body, byte('a'+(worker+request+len(body))%26))
	}
	return body
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (r *Result) explain(why string) {
	if len(r.Why) < maxWhy {
		r.Why = append(r.Why, why)
	}
}

// Sum is several results in one.
func Sum(results ...Result) (sum Result) {
	for _, r := range results {
		sum.Answered += r.Answered
		sum.Lost += r.Lost
		sum.Wrong += r.Wrong
		sum.Closed += r.Closed
		for _, why := range r.Why {
			sum.explain(why)
		}
		sum.took = append(sum.took, r.took...)
	}
	slices.Sort(sum.took)
	return sum
}

// Took returns the time within which a part of the answered requests had their
// answers, 0.999 for example; 1 is the slowest.
func (r Result) Took(part float64) time.Duration { return Quantile(r.took, part) }

// String is the result in a line.
func (r Result) String() string {
	ms := func(part float64) float64 { return float64(r.Took(part).Microseconds()) / 1000 }
	return fmt.Sprintf("%d answered, %d lost (%d on closed connections), %d wrong; p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms, slowest %.2f ms",
		r.Answered, r.Lost, r.Closed, r.Wrong, ms(0.5), ms(0.99), ms(0.999), ms(1))
}

// Quantile returns the value that a part of the ascending values do not exceed;
// 0 if there are none.
func Quantile(ascending []time.Duration, part float64) time.Duration {
	if len(ascending) == 0 {
		return 0
	}
	return ascending[min(int(part*float64(len(ascending))), len(ascending)-1)]
}
