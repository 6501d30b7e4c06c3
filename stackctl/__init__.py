"""The program that runs on the droplet: it releases, backs up, restores and reports. It uses only the standard library.

`deploys` imports from this package the code that both sides share, such as paths and manifests. This package never
imports `deploys`.
"""
