"""The droplet's own program: it releases, backs up, restores and reports. It uses the standard library only.

deploys imports from here what both sides share, from paths to manifests. Nothing here imports deploys.
"""
