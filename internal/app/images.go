package app

import (
	"context"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/httpapi"
	"github.com/shoal-pool/shoal/internal/providers/local"
	"github.com/shoal-pool/shoal/internal/providers/local/rootfs"
)

// images are the local provider's images as the API shows them; without that provider there are none.
func images(p *local.Provider) httpapi.Images {
	if p == nil {
		return nil
	}
	return keptImages{p}
}

type keptImages struct{ p *local.Provider }

func (k keptImages) Images(context.Context) ([]api.Image, error) {
	list, err := k.p.Images()
	out := make([]api.Image, 0, len(list))
	for _, i := range list {
		out = append(out, image(i))
	}
	return out, err
}

func image(i rootfs.Info) api.Image {
	return api.Image{Name: i.Name, Kind: string(i.Kind), Created: i.Created}
}

func (k keptImages) Snapshot(ctx context.Context, name string) (api.Image, error) {
	if err := k.p.Snapshot(ctx, name); err != nil {
		return api.Image{}, err
	}
	list, err := k.p.Images()
	for _, i := range list {
		if i.Name == name {
			return image(i), nil
		}
	}
	return api.Image{Name: name}, err
}

func (k keptImages) RemoveImage(_ context.Context, name string) error { return k.p.RemoveImage(name) }
