package snp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// fault is why there is no answer, and how long the service wants to be left alone.
type fault struct {
	err     error
	retry   time.Duration
	limited bool
}

func (k *KDS) tell(o Outcome, alone time.Duration) {
	if k.c.Told != nil {
		k.c.Told(o, alone)
	}
}

// note keeps an answer, that there is none, or how long the service is to be left alone.
func (k *KDS) note(path string, data []byte, f fault) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.c.Now()
	if f.err != nil {
		pause := min(firstPause<<min(k.failures, 10), longestWait)
		k.failures++
		pause = max(pause, min(f.retry, maxRetry))
		k.pause, k.trouble = now.Add(pause), f.err
		if f.limited {
			k.tell(RateLimited, pause)
		} else {
			k.tell(Failed, pause)
		}
		return
	}
	k.failures, k.pause, k.trouble = 0, time.Time{}, nil
	k.tell(Answered, 0)
	if data == nil {
		k.remember(path, &answer{none: now.Add(noneFor)})
		return
	}
	k.remember(path, &answer{data: data, fetched: now})
}

// fetch asks. No data and no fault: there is no such thing.
func (k *KDS) fetch(q *question) ([]byte, fault) {
	ctx, cancel := context.WithTimeout(k.ctx, k.c.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base+q.path, nil)
	if err != nil {
		return nil, fault{err: err}
	}
	response, err := k.http.Do(r)
	if err != nil {
		return nil, fault{err: err}
	}
	defer response.Body.Close()
	switch status := response.StatusCode; status {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusBadRequest:
		return nil, fault{}
	default:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		return nil, fault{fmt.Errorf("status %d", status), time.Duration(min(max(seconds, 0), int(maxRetry/time.Second))) * time.Second,
			status == http.StatusTooManyRequests}
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fault{err: err}
	case len(data) > maxAnswer:
		return nil, fault{err: fmt.Errorf("answer of more than %d bytes", maxAnswer)}
	case len(data) == 0:
		return nil, fault{err: errors.New("empty answer")}
	}
	if err := q.check(data); err != nil {
		return nil, fault{err: fmt.Errorf("not what was asked for: %w", err)}
	}
	return data, fault{}
}
