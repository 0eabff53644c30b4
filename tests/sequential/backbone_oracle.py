"""Forward passes of the backbones in float64 NumPy, position by position, written from the papers' formulas."""

import math

import numpy as np


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def silu(x):
    return x / (1 + np.exp(-x))


def layer_norm(x, epsilon, scale=1.0, bias=0.0):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * scale + bias


def rms_norm(x, scale):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale


def softmax_attention(q, k, v, heads):
    """Of one sequence [length, width]; head h reads the h-th slice of the columns."""
    out, dim = np.zeros_like(v), q.shape[1] // heads
    for h in range(heads):
        part = slice(h * dim, (h + 1) * dim)
        for i in range(len(q)):
            weights = softmax(np.array([q[i, part] @ k[j, part] / math.sqrt(dim) for j in range(i + 1)]))
            out[i, part] = sum(weights[j] * v[j, part] for j in range(i + 1))
    return out


def sasrec(config, params, x):
    x = x * math.sqrt(config.width) + params["positions"][: len(x)]
    for layer in range(config.num_layers):
        p = {name: value[layer] for name, value in params["blocks"].items()}
        q = layer_norm(x, 1e-8, p["attention_norm_scale"], p["attention_norm_bias"])
        queries = q @ p["query_kernel"] + p["query_bias"]
        keys, values = (x @ p[f"{name}_kernel"] + p[f"{name}_bias"] for name in ("key", "value"))
        attended = softmax_attention(queries, keys, values, config.num_heads)
        a = q + attended @ p["output_kernel"] + p["output_bias"]
        f = layer_norm(a, 1e-8, p["ffn_norm_scale"], p["ffn_norm_bias"])
        hidden = np.maximum(f @ p["hidden_kernel"] + p["hidden_bias"], 0)
        x = f + hidden @ p["last_kernel"] + p["last_bias"]
    return x


def hstu(config, params, x, times=None, request_times=None):
    heads, n = config.num_heads, config.max_length
    a = config.attention_dim or config.width // heads
    v = config.linear_dim or config.width // heads
    x = x * math.sqrt(config.width) + params["positions"][: len(x)]
    for layer in range(config.num_layers):
        p = {name: value[layer] for name, value in params["blocks"].items()}
        mapped = silu(layer_norm(x, 1e-6) @ p["uvqk_kernel"])
        gates, values = mapped[:, : heads * v], mapped[:, heads * v : 2 * heads * v]
        queries, keys = mapped[:, 2 * heads * v :][:, : heads * a], mapped[:, 2 * heads * v + heads * a :]
        out = np.zeros((len(x), heads * v))
        for h in range(heads):
            for i in range(len(x)):
                for j in range(i + 1):
                    score = queries[i, h * a : (h + 1) * a] @ keys[j, h * a : (h + 1) * a]
                    score += p["position_bias"][i - j]
                    if times is not None:
                        gap = abs(int(request_times[i]) - int(times[j]))
                        score += p["time_bias"][min(int(math.log(max(gap, 1)) / 0.301), config.time_buckets)]
                    out[i, h * v : (h + 1) * v] += silu(score) / n * values[j, h * v : (h + 1) * v]
        x = x + (gates * layer_norm(out, 1e-6)) @ p["output_kernel"] + p["output_bias"]
    return x


def rotate(x, heads, base):
    """Pairs as complex numbers, turned."""
    out, dim = np.zeros_like(x), x.shape[1] // heads
    for i in range(len(x)):
        for h in range(heads):
            for c in range(dim // 2):
                first, second = h * dim + c, h * dim + c + dim // 2
                turned = complex(x[i, first], x[i, second]) * np.exp(1j * i * base ** (-2 * c / dim))
                out[i, first], out[i, second] = turned.real, turned.imag
    return out


def llama(config, params, x):
    x = x * math.sqrt(config.width)
    for layer in range(config.num_layers):
        p = {name: value[layer] for name, value in params["blocks"].items()}
        n = rms_norm(x, p["attention_norm_scale"])
        q, k = (rotate(n @ p[f"{name}_kernel"], config.num_heads, config.rotary_base) for name in ("query", "key"))
        x = x + softmax_attention(q, k, n @ p["value_kernel"], config.num_heads) @ p["output_kernel"]
        m = rms_norm(x, p["ffn_norm_scale"])
        x = x + (silu(m @ p["gate_kernel"]) * (m @ p["up_kernel"])) @ p["down_kernel"]
    return rms_norm(x, params["final_norm_scale"])
