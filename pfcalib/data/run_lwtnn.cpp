// Evaluates a network in the JSON format of lwtnn (doi 10.5281/zenodo.597221) in double precision,
// by the rules of that library, so that a file written for it can be checked without it.
//
//   run_lwtnn MODEL < rows > answers
//   run_lwtnn MODEL time < rows > nanoseconds
//
// All numbers are raw doubles. A row holds the variables of each input, then of each input sequence
// the number of its steps and the variables of step after step; an answer holds the labels of the
// outputs, which are taken in the order of their names.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {
using Vector = std::vector<double>;
using Sequence = std::vector<Vector>;  // a vector for each step

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

// A JSON value: an array of numbers keeps them as such.
struct Value {
  enum Kind { kNumber, kText, kArray, kObject } kind = kNumber;
  double number = 0.0;
  std::string text;
  Vector numbers;
  std::vector<Value> items;
  std::map<std::string, Value> members;

  bool has(const std::string& key) const { return members.count(key) != 0; }
  const Value& at(const std::string& key) const {
    const auto found = members.find(key);
    if (found == members.end()) fail("a value named " + key + " is missing");
    return found->second;
  }
  std::size_t index(const std::string& key) const { return to_index(at(key).number); }
  static std::size_t to_index(double number) {
    if (!(number >= 0.0) || number != std::floor(number) || number > 1e9) fail("not an index");
    return static_cast<std::size_t>(number);
  }
};

class Reader {
 public:
  explicit Reader(std::string text) : text_(std::move(text)) {}

  Value document() {
    Value value = read(0);
    if (skip() != '\0') fail("text behind the end of the JSON document");
    return value;
  }

 private:
  char skip() {
    while (place_ < text_.size() && std::strchr(" \t\r\n", text_[place_])) ++place_;
    return place_ < text_.size() ? text_[place_] : '\0';
  }
  void expect(char wanted) {
    if (skip() != wanted)
      fail("JSON: expected " + std::string(1, wanted) + " at " + std::to_string(place_));
    ++place_;
  }
  std::string quoted() {
    expect('"');
    std::string found;
    while (place_ < text_.size() && text_[place_] != '"') {
      if (text_[place_] == '\\') fail("JSON: escapes in names are not read");
      found += text_[place_++];
    }
    expect('"');
    return found;
  }
  double number() {
    char* end = nullptr;
    const char* start = text_.c_str() + place_;
    const double found = std::strtod(start, &end);
    if (end == start || !std::isfinite(found)) fail("JSON: no number at " + std::to_string(place_));
    place_ += static_cast<std::size_t>(end - start);
    return found;
  }
  Value read(int depth) {
    if (depth > 20) fail("JSON: nested too deeply");
    Value value;
    const char first = skip();
    if (first == '"') {
      value.kind = Value::kText;
      value.text = quoted();
    } else if (first == '{' || first == '[') {
      const char last = first == '{' ? '}' : ']';
      value.kind = first == '{' ? Value::kObject : Value::kArray;
      ++place_;
      for (bool more = skip() != last; more; more = skip() == ',' && ++place_) {
        if (first == '{') {
          std::string key = quoted();
          expect(':');
          value.members[key] = read(depth + 1);
        } else if (skip() == '"' || skip() == '{' || skip() == '[') {
          value.items.push_back(read(depth + 1));
        } else {
          value.numbers.push_back(number());
        }
      }
      expect(last);
    } else {
      value.number = number();
    }
    return value;
  }

  std::string text_;
  std::size_t place_ = 0;
};

// Rows one after the other; a row makes one output.
struct Matrix {
  std::size_t rows, columns;
  Vector values;

  Matrix(const Vector& weights, std::size_t n_inputs) : columns(n_inputs), values(weights) {
    if (n_inputs == 0 || weights.size() % n_inputs != 0)
      fail(std::to_string(weights.size()) + " weights do not make a matrix for " +
           std::to_string(n_inputs) + " inputs");
    rows = weights.size() / n_inputs;
  }
  // adds the product with a vector to another vector
  void multiply(const Vector& x, Vector& sum) const {
    if (x.size() != columns || sum.size() != rows) fail("a matrix and its vector do not fit");
    const double* weight = values.data();
    for (std::size_t row = 0; row < rows; ++row, weight += columns)
      for (std::size_t i = 0; i < columns; ++i) sum[row] += weight[i] * x[i];
  }
};

using Function = std::function<Vector(Vector)>;

template <typename F>
Function each(F function) {
  return [function](Vector x) {
    for (double& y : x) y = function(y);
    return x;
  };
}

double sigmoid(double x) { return x < -30.0 ? 0.0 : x > 30.0 ? 1.0 : 1.0 / (1.0 + std::exp(-x)); }

Vector softmax(Vector x) {
  double largest = -INFINITY, sum = 0.0;
  for (double y : x) largest = std::max(largest, y);
  for (double& y : x) sum += y = std::exp(y - largest);
  for (double& y : x) y /= sum;
  return x;
}

// A name, or an object of a name and a parameter.
Function activation(const Value& value) {
  const bool simple = value.kind == Value::kText;
  const std::string& name = simple ? value.text : value.at("function").text;
  const double alpha = !simple ? value.at("alpha").number : name == "elu" ? 1.0 : NAN;
  if (name == "linear") return [](Vector x) { return x; };
  if (name == "rectified") return each([](double x) { return x < 0.0 ? 0.0 : x; });
  if (name == "sigmoid") return each(sigmoid);
  if (name == "hard_sigmoid")
    return each([](double x) { return std::fmin(std::fmax(0.2 * x + 0.5, 0.0), 1.0); });
  if (name == "tanh") return each([](double x) { return std::tanh(x); });
  if (name == "abs") return each([](double x) { return std::fabs(x); });
  if (name == "softmax") return softmax;
  if (name == "elu")
    return each([alpha](double x) { return x >= 0.0 ? x : alpha * (std::exp(x) - 1.0); });
  if (name == "leakyrelu") return each([alpha](double x) { return x > 0.0 ? x : alpha * x; });
  if (name == "swish") return each([alpha](double x) { return x * sigmoid(alpha * x); });
  fail("activation function " + name + " is not known");
}

// Layers of a vector; width is that of the input, then that of the output.
Function feed_forward(const Value& layer, std::size_t& width) {
  const std::string& kind = layer.at("architecture").text;
  const Vector &weights = layer.at("weights").numbers, &bias = layer.at("bias").numbers;
  if (kind == "normalization") {
    if (weights.size() != width || bias.size() != width) fail("a normalization does not fit");
    return [weights, bias](Vector x) {
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = weights[i] * (x[i] + bias[i]);
      return x;
    };
  }
  if (kind != "dense") fail("architecture " + kind + " is not one of a vector");
  const Function function = activation(layer.at("activation"));
  if (weights.empty()) {
    if (!bias.empty() && bias.size() != width) fail("a bias does not fit");
    return [bias, function](Vector x) {
      for (std::size_t i = 0; i < bias.size(); ++i) x[i] += bias[i];
      return function(std::move(x));
    };
  }
  const Matrix matrix(weights, width);
  width = matrix.rows;
  const Vector start = bias.empty() ? Vector(width, 0.0) : bias;
  if (start.size() != width) fail("a bias does not fit its matrix");
  return [matrix, start, function](Vector x) {
    Vector sum = start;
    matrix.multiply(x, sum);
    return function(std::move(sum));
  };
}

// One gate of a recurrent layer: W x + b + U h.
struct Gate {
  Matrix w, u;
  Vector b;

  Gate(const Value& layer, const std::string& name, std::size_t n_inputs)
      : w(layer.at("components").at(name).at("weights").numbers, n_inputs),
        u(layer.at("components").at(name).at("U").numbers, w.rows),
        b(layer.at("components").at(name).at("bias").numbers) {
    if (u.rows != w.rows || b.size() != w.rows) fail("component " + name + " does not fit");
  }
  Vector operator()(const Vector& x, const Vector& h) const {
    Vector sum = b;
    w.multiply(x, sum);
    u.multiply(h, sum);
    return sum;
  }
};

using Scan = std::function<Sequence(const Sequence&)>;

Scan long_short_term(const Value& layer, std::size_t& width) {
  const Gate i(layer, "i", width), f(layer, "f", width), o(layer, "o", width), c(layer, "c", width);
  const Function outer = activation(layer.at("activation"));
  const Function inner = activation(layer.at("inner_activation"));
  width = o.b.size();
  return [=](const Sequence& steps) {
    Vector state(o.b.size(), 0.0), h = state;
    Sequence found;
    for (const Vector& x : steps) {
      const Vector in = inner(i(x, h)), forget = inner(f(x, h)), out = inner(o(x, h));
      const Vector candidate = outer(c(x, h));
      for (std::size_t k = 0; k < state.size(); ++k)
        state[k] = forget[k] * state[k] + in[k] * candidate[k];
      h = outer(state);
      for (std::size_t k = 0; k < h.size(); ++k) h[k] *= out[k];
      found.push_back(h);
    }
    return found;
  };
}

// The reset acts on h before the product with U.
Scan gated_recurrent(const Value& layer, std::size_t& width) {
  const Gate z(layer, "z", width), r(layer, "r", width), n(layer, "h", width);
  const Function outer = activation(layer.at("activation"));
  const Function inner = activation(layer.at("inner_activation"));
  width = n.b.size();
  return [=](const Sequence& steps) {
    Vector h(n.b.size(), 0.0);
    Sequence found;
    for (const Vector& x : steps) {
      const Vector update = inner(z(x, h)), reset = inner(r(x, h));
      Vector kept = h;
      for (std::size_t k = 0; k < h.size(); ++k) kept[k] *= reset[k];
      const Vector candidate = outer(n(x, kept));
      for (std::size_t k = 0; k < h.size(); ++k)
        h[k] = update[k] * h[k] + (1.0 - update[k]) * candidate[k];
      found.push_back(h);
    }
    return found;
  };
}

Scan recurrent(const Value& layer, std::size_t& width) {
  const std::string& kind = layer.at("architecture").text;
  if (kind == "lstm") return long_short_term(layer, width);
  if (kind == "gru") return gated_recurrent(layer, width);
  fail("architecture " + kind + " is not one of a sequence");
}

// An input or an input sequence: (x + offset) * scale for each variable.
struct Preprocessor {
  Vector offsets, scales;

  explicit Preprocessor(const Value& variables) {
    for (const Value& variable : variables.items) {
      variable.at("name");
      offsets.push_back(variable.at("offset").number);
      scales.push_back(variable.at("scale").number);
    }
    if (offsets.empty()) fail("an input has no variables");
  }
  // false at the end of the stream
  bool read(Vector& x) const {
    x.resize(offsets.size());
    if (std::fread(x.data(), sizeof(double), x.size(), stdin) != x.size()) return false;
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = (x[i] + offsets[i]) * scales[i];
    return true;
  }
};

struct Event {
  std::vector<Vector> inputs;
  std::vector<Sequence> sequences;
};

// What a node gives: a vector, a sequence, or, behind a recurrent layer, both.
struct Node {
  std::size_t width = 0;
  std::function<Vector(const Event&)> compute;
  std::function<Sequence(const Event&)> scan;
};

class Graph {
 public:
  explicit Graph(const Value& config)
      : nodes_(config.at("nodes").items), layers_(config.at("layers").items) {}

  // the graph keeps the node
  const Node* build(std::size_t place, std::size_t depth = 0) {
    if (place >= nodes_.size()) fail("there is no node " + std::to_string(place));
    if (depth > nodes_.size()) fail("the graph has a cycle");
    if (built_.count(place) == 0) built_[place] = make(nodes_[place], depth);
    return &built_.at(place);
  }

 private:
  Node make(const Value& node, std::size_t depth) {
    const std::string& type = node.at("type").text;
    std::vector<std::size_t> sources;
    for (double number : node.at("sources").numbers) sources.push_back(Value::to_index(number));
    Node made;
    if (type == "concatenate" || type == "add") return merge(sources, type == "add", depth);
    if (sources.size() != 1) fail("a node of type " + type + " needs one source");
    if (type == "input" || type == "input_sequence") {
      const std::size_t number = sources[0], size = made.width = node.index("size");
      const auto checked = [size](const Vector& x) {
        if (x.size() != size) fail("an input does not have the size of its node");
      };
      if (type == "input")
        made.compute = [number, checked](const Event& event) {
          checked(event.inputs.at(number));
          return event.inputs[number];
        };
      else
        made.scan = [number, checked](const Event& event) {
          for (const Vector& step : event.sequences.at(number)) checked(step);
          return event.sequences[number];
        };
      return made;
    }
    const Node* source = build(sources[0], depth + 1);
    const std::size_t width = made.width = source->width;
    if (!(type == "feed_forward" ? bool(source->compute) : bool(source->scan)))
      fail("the source of a node of type " + type + " gives no such thing");
    if (type == "sum") {
      made.compute = [source, width](const Event& event) {
        Vector sum(width, 0.0);
        for (const Vector& x : source->scan(event))
          for (std::size_t i = 0; i < width; ++i) sum[i] += x[i];
        return sum;
      };
      return made;
    }
    const std::size_t number = node.index("layer_index");
    if (number >= layers_.size()) fail("there is no layer " + std::to_string(number));
    if (type == "feed_forward") {
      const Function layer = feed_forward(layers_[number], made.width);
      made.compute = [source, layer](const Event& event) { return layer(source->compute(event)); };
    } else if (type == "time_distributed") {
      const Function layer = feed_forward(layers_[number], made.width);
      made.scan = [source, layer](const Event& event) {
        Sequence steps = source->scan(event);
        for (Vector& x : steps) x = layer(std::move(x));
        return steps;
      };
    } else if (type == "sequence") {
      const Scan layer = recurrent(layers_[number], made.width);
      made.scan = [source, layer](const Event& event) { return layer(source->scan(event)); };
      const auto scan = made.scan;
      const std::size_t n = made.width;
      made.compute = [scan, n](const Event& event) {
        const Sequence steps = scan(event);
        return steps.empty() ? Vector(n, 0.0) : steps.back();
      };
    } else {
      fail("node type " + type + " is not known");
    }
    return made;
  }

  Node merge(const std::vector<std::size_t>& places, bool add, std::size_t depth) {
    std::vector<const Node*> sources;
    Node made;
    for (std::size_t place : places) {
      sources.push_back(build(place, depth + 1));
      const std::size_t width = sources.back()->width;
      if (!sources.back()->compute) fail("only vectors can be merged");
      if (add && width != sources.front()->width) fail("vectors to add differ in length");
      made.width = add ? width : made.width + width;
    }
    const std::size_t width = made.width;
    made.compute = [sources, add, width](const Event& event) {
      Vector found(add ? width : 0, 0.0);
      for (const Node* source : sources) {
        const Vector part = source->compute(event);
        for (std::size_t i = 0; add && i < width; ++i) found[i] += part[i];
        if (!add) found.insert(found.end(), part.begin(), part.end());
      }
      return found;
    };
    return made;
  }

  const std::vector<Value>&nodes_, &layers_;
  std::map<std::size_t, Node> built_;
};

int run(const char* path, bool timed) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("cannot be read");
  const Value config =
      Reader({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()}).document();
  std::vector<Preprocessor> inputs, sequences;
  std::vector<const Node*> outputs;
  std::optional<Graph> graph;
  Node last;
  if (config.has("nodes")) {  // of LightweightGraph
    for (const Value& input : config.at("inputs").items) inputs.emplace_back(input.at("variables"));
    for (const Value& input : config.at("input_sequences").items)
      sequences.emplace_back(input.at("variables"));
    graph.emplace(config);
    for (const auto& [name, output] : config.at("outputs").members) {
      outputs.push_back(graph->build(output.index("node_index")));
      if (!outputs.back()->compute) fail("output " + name + " is not a vector");
      if (output.at("labels").items.size() != outputs.back()->width)
        fail("output " + name + " has a wrong number of labels");
    }
  } else {  // of LightweightNeuralNetwork
    inputs.emplace_back(config.at("inputs"));
    std::size_t width = inputs[0].offsets.size();
    std::vector<Function> layers;
    for (const Value& layer : config.at("layers").items)
      layers.push_back(feed_forward(layer, width));
    if (config.at("outputs").items.size() != width) fail("a wrong number of outputs");
    outputs.push_back(&last);
    last.compute = [layers](const Event& event) {
      Vector x = event.inputs[0];
      for (const Function& layer : layers) x = layer(std::move(x));
      return x;
    };
  }
  if (outputs.empty() || (inputs.empty() && sequences.empty())) fail("no input or no output");
  for (;;) {
    Event event{std::vector<Vector>(inputs.size()), std::vector<Sequence>(sequences.size())};
    bool complete = true;
    for (std::size_t i = 0; i < inputs.size() && complete; ++i)
      complete = inputs[i].read(event.inputs[i]);
    for (std::size_t i = 0; i < sequences.size() && complete; ++i) {
      double n_steps = 0.0;
      complete = std::fread(&n_steps, sizeof n_steps, 1, stdin) == 1;
      if (!complete) break;
      event.sequences[i].resize(Value::to_index(n_steps));
      for (Vector& step : event.sequences[i]) complete = complete && sequences[i].read(step);
    }
    if (!complete) return 0;
    const auto start = std::chrono::steady_clock::now();
    for (const Node* output : outputs) {
      const Vector answer = output->compute(event);
      if (!timed) std::fwrite(answer.data(), sizeof(double), answer.size(), stdout);
    }
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
    const double nanoseconds = spent.count();
    if (timed) std::fwrite(&nanoseconds, sizeof nanoseconds, 1, stdout);
  }
}
}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: run_lwtnn MODEL [time] < rows > answers\n");
    return 2;
  }
  try {
    return run(argv[1], argc > 2);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
