package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/shoal-pool/shoal/provider"
)

// readSchema reads the schema of the settings. Without one there are none.
func readSchema(text json.RawMessage) (*jsonschema.Resolved, error) {
	if len(text) == 0 {
		text = json.RawMessage(`{"type": "object", "additionalProperties": false}`)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, errors.New("its settings are no JSON Schema")
	}
	r, err := s.Resolve(nil) // without a loader, nothing is fetched
	if err != nil {
		return nil, fmt.Errorf("its settings are no JSON Schema: %s", clean(err.Error()))
	}
	return r, nil
}

// checkConfig checks a pool's providerConfig.
func (p *Provider) checkConfig(ctx context.Context, config map[string]any) error {
	if _, err := p.description(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	settings := p.settings
	p.mu.Unlock()
	if config == nil {
		config = map[string]any{}
	}
	if err := settings.Validate(config); err != nil {
		return provider.Errorf(provider.Invalid, "cannot read providerConfig: %s", strings.TrimPrefix(clean(err.Error()), "validating root: "))
	}
	return nil
}
