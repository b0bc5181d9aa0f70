package main

import (
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/shoal-pool/shoal/provider"
)

// typed says what kind an error of the API server's is.
func typed(err error, doing string) error {
	if err == nil {
		return nil
	}
	code := provider.Transient
	var until time.Time
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		code = provider.Quota
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		code = provider.Denied
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		code = provider.Invalid
	case apierrors.IsNotFound(err):
		code = provider.NotFound
	}
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		until = time.Now().Add(time.Duration(seconds) * time.Second)
	}
	e := provider.Errorf(code, "cannot %s: %w", doing, err)
	e.Until = until
	return e
}
