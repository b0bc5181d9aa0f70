# Written by `shoal serve` at each start of JupyterHub. What is to differ goes into custom.py beside this directory.
import os

c = get_config()  # noqa: F821

c.JupyterHub.bind_url = {{py .Public}}
c.JupyterHub.hub_bind_url = "unix+http://" + "{{.Inside}}/state/hub.sock".replace("/", "%2F")
c.JupyterHub.hub_connect_url = {{py .Front}}
{{- if .AppsDomain}}
c.JupyterHub.subdomain_host = {{py .Public}}
{{- end}}

# Users and their servers are Shoal's.
c.JupyterHub.spawner_class = "shoal_jupyterhub.ShoalSpawner"
c.JupyterHub.authenticator_class = "shoal_jupyterhub.ShoalAuthenticator"
c.Shoal.server = {{py .API}}
c.Shoal.token_file = "{{.Inside}}/config/shoal.token"
c.ShoalAuthenticator.single_sign_on = True
c.JupyterHub.allow_named_servers = True
{{- if .Machines}}
c.Spawner.hub_connect_url = {{py .Machines}}
{{- end}}

# Shoal's gateway is the proxy.
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = {{py .Routes}}
with open("{{.Inside}}/config/routes.token") as f:
    c.ConfigurableHTTPProxy.auth_token = f.read().strip()

c.JupyterHub.db_url = "sqlite:///{{.Inside}}/state/jupyterhub.sqlite"
c.JupyterHub.upgrade_db = True
c.JupyterHub.cookie_secret_file = "{{.Inside}}/state/cookie_secret"

# It comes and goes, and servers stay. It answers before all of them have been looked at.
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.init_spawners_timeout = 1

# A start shows its progress at once, and as many may start as ask for it: Shoal knows what machines there are.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0.5}
c.JupyterHub.concurrent_spawn_limit = 0

if os.path.exists("{{.Inside}}/custom.py"):
    load_subconfig("{{.Inside}}/custom.py")  # noqa: F821
