package store_test

import (
	"testing"

	"github.com/shoal-pool/shoal/internal/store/storetest"
)

func TestSuite(t *testing.T) { storetest.Run(t, storetest.Open) }
