package storage_test

import (
	"testing"

	"holdfast/storage"
	"holdfast/storage/storagetest"
)

func TestMemory(t *testing.T) {
	storagetest.Run(t, func(testing.TB) storagetest.Open {
		memory := &storage.Memory{}
		return func(t testing.TB, o storage.Options) *storage.Store {
			o.Memory = memory
			s, err := storage.OpenMemory(o)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	})
}

func TestBadger(t *testing.T) {
	storagetest.Run(t, func(t testing.TB) storagetest.Open {
		dir := t.TempDir()
		return func(t testing.TB, o storage.Options) *storage.Store {
			o.Dir = dir
			s, err := storage.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	})
}
