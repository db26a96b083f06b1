"""Trained networks as ONNX files that are proven to be the same.

export: export_onnx, predict; contract: ModelContract, read_contract; validator: check_stored_model,
require_parity, open_session, run_in_batches; graphfile: read_graph, graph_problems; examination:
examine_apart; against: examine_against, examine_training; latency: measure_latency; cost:
count_multiply_adds; layerwise: layer_differences; native: run_native (a C++ program); lwtnn:
export_lwtnn, run_lwtnn; variants: write_float16, write_int8; bandwidth: read_bound; service:
inference over HTTP and gRPC; client: LocalModel, RemoteModel.
"""
