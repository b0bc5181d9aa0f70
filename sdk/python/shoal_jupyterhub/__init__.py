"""JupyterHub on Shoal: who logs in is a user of Shoal's, and her notebook server runs on her machine.

Three lines of ``jupyterhub_config.py`` are enough for a hub of your own::

    c.JupyterHub.spawner_class = c.JupyterHub.authenticator_class = "shoal"
    c.Shoal.server = "https://pool.example.org:7443"
    c.Shoal.token_file = "/etc/jupyterhub/shoal.token"

``shoal serve`` does the same by itself where a pool has an endpoint named jupyter.
"""

from ._api import Shoal, ShoalError
from .authenticator import ShoalAuthenticator
from .spawner import ShoalSpawner

__all__ = ["Shoal", "ShoalAuthenticator", "ShoalError", "ShoalSpawner"]
