package bridge

import "sync"

// fifo hands values from many goroutines to one, without a bound of its own:
// who pushes has one.
type fifo[T any] struct {
	ready chan struct{} // has a token when there may be something to pop

	mu     sync.Mutex
	items  []T
	closed bool
}

func newFifo[T any]() *fifo[T] { return &fifo[T]{ready: make(chan struct{}, 1)} }

// push reports false if the fifo was closed.
func (q *fifo[T]) push(v T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.items = append(q.items, v)
	signal(q.ready)
	return true
}

// pop waits for the next value. ok is false when stop is closed, or when the
// fifo is closed and empty.
func (q *fifo[T]) pop(stop <-chan struct{}) (v T, ok bool) {
	for {
		select {
		case <-stop:
			return v, false
		default:
		}
		q.mu.Lock()
		if len(q.items) > 0 {
			v = q.items[0]
			var zero T
			q.items[0] = zero
			if q.items = q.items[1:]; len(q.items) == 0 {
				q.items = nil
			}
			q.mu.Unlock()
			return v, true
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return v, false
		}
		select {
		case <-q.ready:
		case <-stop:
		}
	}
}

// close lets nothing more in; what is left can still be popped.
func (q *fifo[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	signal(q.ready)
}

// drop lets nothing more in and takes what is left.
func (q *fifo[T]) drop() []T {
	q.close()
	q.mu.Lock()
	defer q.mu.Unlock()
	rest := q.items
	q.items = nil
	return rest
}
