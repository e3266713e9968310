package access

// recent remembers a bounded number of things. When a generation is full, what the one before had and this one
// has not seen is forgotten. It is not safe for concurrent use.
type recent[K comparable, V any] struct{ young, old map[K]V }

// generation is how many things one generation holds.
const generation = 4096

func (r *recent[K, V]) get(k K) (V, bool) {
	v, ok := r.young[k]
	if !ok {
		if v, ok = r.old[k]; ok {
			r.set(k, v)
		}
	}
	return v, ok
}

func (r *recent[K, V]) set(k K, v V) {
	if _, ok := r.young[k]; !ok && len(r.young) >= generation {
		r.old, r.young = r.young, nil
	}
	if r.young == nil {
		r.young = make(map[K]V)
	}
	r.young[k] = v
}
