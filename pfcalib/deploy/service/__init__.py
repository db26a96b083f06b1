"""Inference as a service: networks behind the KServe protocol, version 2, over HTTP and gRPC.

server: ServiceConfig, serve; repository: Repository; batching: Batcher, BatchingConfig; refusal:
Refusal, Reason. The client with fall-back to local inference is `pfcalib.deploy.client`.
"""
