"""The program that runs on the droplet: it releases, backs up, restores and reports. It uses only the standard library.

`deploys` imports from this package what both sides share, from paths to manifests. This package never imports
`deploys`.
"""
